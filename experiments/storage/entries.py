"""What a run has left, from text: an entry of the ledger, its result and its rows, and what is wrong with them.

What is wrong is told in faults, a line each. `ledger` refuses an entry with the first one, a report shows the run with all of
them. Imports no JAX.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.errors import first_line
from experiments.fields import LATER
from experiments.storage import files
from experiments.storage.names import CURVES

DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what reading a damaged file raises
_NUMBERS = ("final_val_loss", "final_val_accuracy", "best_val_loss", "best_val_accuracy", "test_loss", "test_accuracy")


class Entry(NamedTuple):
    """An entry of the ledger.

    Attributes:
      config: The fields of its config by their dotted names; empty if they are damaged.
      result: Its result; empty if it is damaged.
      rows: The rows of its epochs, up to the first damaged one.
      faults: What is wrong, a line each.
    """

    config: dict[str, Any]
    result: dict[str, Any]
    rows: list[dict[str, Any]]
    faults: list[str]


def parse(content: bytes) -> Entry:
    """Returns what is in an entry of the ledger: a line with its config and its result, then one row for each epoch."""
    faults: list[str] = []
    first, _, rest = content.partition(b"\n")
    try:
        line = files.parse_object(first, "line 1")
        for name in ("config", "result"):
            if not isinstance(line[name], dict):
                raise ValueError(f"{name} is not an object")
        config = whole_numbers(LATER | line["config"])
        result = checked_result(line["result"])
    except DAMAGE as error:
        return Entry({}, {}, [], [fault("line 1", error)])
    rows = parse_rows(rest, 2, "line", faults)
    epochs = result.get("epochs") if config["patience"] else config["epochs"]
    compare(result, rows, epochs, faults)
    return Entry(config, result, rows, faults)


def fault(name: str, error: Exception) -> str:
    """Returns what an error of DAMAGE says of the part with a name."""
    if isinstance(error, OSError):
        return f"{name} cannot be read: {error.strerror}" if error.strerror else f"{name} cannot be read"
    text = f"{error.args[0]} is missing" if isinstance(error, KeyError) else first_line(error)
    return text if text.startswith(name) else f"{name}: {text}"


def is_number(value: Any) -> bool:
    """Returns whether a value from a JSON file is a finite number."""
    return type(value) in (int, float) and -1e300 < value < 1e300


def whole_numbers(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the same config. Raises KeyError or ValueError if one of its integers, which tables need, is none."""
    for name in ("seed", "epochs", "batch_size"):
        if type(config[name]) is not int or not 0 <= config[name] < 2**31:
            raise ValueError(f"{name}={config[name]!r} must be an integer from 0 to {2**31 - 1}")
    return config


def checked_result(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the same result. Raises KeyError or ValueError if one of its numbers is missing or none."""
    for name in _NUMBERS:
        if not is_number(result[name]):
            raise ValueError(f"{name}={result[name]!r} must be a number")
    return result


def parse_rows(content: bytes, first: int, name: str, faults: list[str]) -> list[dict[str, Any]]:
    """Returns the rows of epochs 1, 2, …, up to the first damaged one. A last line without its end is left out.

    Args:
      content: Lines of JSON.
      first: The number of the first of them.
      name: What a fault calls a line, as in "metrics.jsonl, line".
      faults: What is wrong is added here.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=first):
        try:
            row = files.parse_object(line, f"{name} {number}")
            if row["epoch"] != len(rows) + 1:
                raise ValueError(f"epoch {row['epoch']!r} where {len(rows) + 1} must be")
            for column in CURVES:
                if not is_number(row[column]):
                    raise ValueError(f"{column}={row[column]!r} must be a number")
        except DAMAGE as error:
            faults.append(fault(f"{name} {number}", error))
            break
        rows.append(row)
    return rows


def compare(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], epochs: Any, faults: list[str]) -> None:
    """Adds it to the faults, if there are none, where the rows of a run are not those of its result and its epochs."""
    if faults:
        return
    if len(rows) != epochs or not rows:
        faults.append(f"it has {len(rows)} of the {epochs} epochs that its result tells of")
    elif rows[-1]["val_accuracy"] != result["final_val_accuracy"]:
        last = rows[-1]["val_accuracy"], result["final_val_accuracy"]
        faults.append(f"its last row has val_accuracy {last[0]}, its result has {last[1]}")
