"""What a result says of the labels of the test split; see `training.judgement`. Imports no JAX."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Measures(NamedTuple):
    """The measures of the last parameters of a run.

    Attributes:
      macro_f1: The mean of the F1 of the labels.
      ece: The expected calibration error.
      recall: The recall of each label, or None for one without examples.
      confusion: Numbers of texts by label (rows) and predicted label (columns), or None for too many labels.
    """

    macro_f1: float
    ece: float
    recall: Mapping[str, float | None]
    confusion: Sequence[Sequence[int]] | None


def of(result: Mapping[str, Any]) -> Measures | None:
    """Returns the measures of a result, or None for a run of pairs of texts, or one from before there were any.

    Raises:
      ValueError: They are damaged.
    """
    told = result.get("test")
    if told is None or (isinstance(told, Mapping) and "exact_match" in told):
        return None
    if not isinstance(told, Mapping) or not isinstance(told.get("recall"), Mapping) or not told["recall"]:
        raise ValueError("test.recall must be an object with a number for each label")
    for name in ("macro_f1", "ece"):
        if not _is_share(told.get(name)):
            raise ValueError(f"test.{name}={told.get(name)!r} must be a number from 0 to 1")
    for label, value in told["recall"].items():
        if value is not None and not _is_share(value):
            raise ValueError(f"test.recall of {label!r} is {value!r} and must be a number from 0 to 1, or null")
    if (confusion := told.get("confusion")) is not None and not _is_square(confusion, len(told["recall"])):
        raise ValueError("test.confusion must have a row for each label, and in it a whole number for each label")
    return Measures(told["macro_f1"], told["ece"], told["recall"], confusion)


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_square(rows: Any, size: int) -> bool:
    def fits(row: Any) -> bool:
        return isinstance(row, list) and len(row) == size and all(type(count) is int and count >= 0 for count in row)

    return isinstance(rows, list) and len(rows) == size and all(map(fits, rows))
