"""Ledgers: folders of finished runs, as rows that are small enough to be committed.

A run is kept as `LABEL-seed_K-HASH.jsonl`: a line with its config and result, then one row per epoch. HASH is the fingerprint
of its config. So the work can be spread over days and machines, and a run is repeated if its config has changed.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from experiments import settings
from experiments.errors import DataError
from experiments.fields import LATER
from experiments.settings import Config
from experiments.storage import files
from experiments.storage.names import CURVES


class Finished(NamedTuple):
    """A finished run: its result and its rows."""

    result: dict[str, Any]
    rows: list[dict[str, Any]]


def entry_of(ledger: Path, label: str, config: Config) -> Path:
    """Returns the path of the entry of a run, whether it exists or not."""
    return ledger / f"{label}-seed_{config.seed}-{settings.fingerprint(config)}.jsonl"


def entries(ledger: Path) -> dict[str, Path]:
    """Returns the entries of a ledger by the fingerprints of their configs. A folder that does not exist has none."""
    return {entry.stem.rpartition("-")[2]: entry for entry in sorted(ledger.glob("*-seed_*-*.jsonl"))}


def write(entry: Path, config: Config, run: Finished, folder: Path) -> None:
    """Adds a run to the ledger, without the path of its data.

    Raises:
      DataError: The run is not complete. Names its folder.
    """
    fields = settings.flatten(config) | {"data.dir": None}
    lines = [{"config": fields, "result": run.result}, *run.rows]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    _parse(content, entry.stem, folder)
    entry.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(entry, content)


def read(entry: Path) -> Finished:
    """Returns the run of an entry.

    Raises:
      DataError: The entry is damaged, or it is not the entry of the config in it.
    """
    try:
        content = entry.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(entry, str(error)) from None
    return _parse(content, entry.stem, entry)


def _parse(content: str, stem: str, path: Path) -> Finished:
    """Returns the run of an entry with this content and name. Errors name `path`."""
    try:
        first, *rows = map(json.loads, content.splitlines())
        config, result = first["config"], first["result"]
        name = f"seed_{config['seed']}-{settings.fingerprint_of(config)}"
        numbers = [[row["epoch"], *(row[column] for column in CURVES)] for row in rows]
        finite = all(math.isfinite(number) for row in numbers for number in row)
        epochs = result["epochs"] if (LATER | config)["patience"] else config["epochs"]
        last = result["final_val_accuracy"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if not stem.endswith(f"-{name}"):
        raise _damaged(path, f"the config in it is that of {name}")
    if [row[0] for row in numbers] != list(range(1, epochs + 1)):
        raise _damaged(path, f"it holds {len(rows)} rows, which are not the {epochs} epochs")
    if not finite:
        raise _damaged(path, "a loss or an accuracy is not finite")
    if rows[-1]["val_accuracy"] != last:
        raise _damaged(path, f"its last row has val_accuracy {rows[-1]['val_accuracy']}, its result has {last}")
    return Finished(result, rows)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}; remove it to make it again")
