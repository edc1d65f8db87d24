"""Ledgers: folders of finished runs, as rows that are small enough to be committed.

A run is kept as `LABEL-seed_K-HASH.jsonl`: a line with its config and result, then one row per epoch. HASH is the fingerprint
of its config. So the work can be spread over days and machines, and a run is repeated if its config has changed.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments import settings
from experiments.errors import DataError
from experiments.settings import Config
from experiments.storage import entries, files


class Finished(NamedTuple):
    """A finished run: its result and its rows."""

    result: dict[str, Any]
    rows: list[dict[str, Any]]


def entry_of(ledger: Path, label: str, config: Config) -> Path:
    """Returns the path of the entry of a run, whether it exists or not."""
    return ledger / f"{label}-seed_{config.seed}-{settings.fingerprint(config)}.jsonl"


def by_fingerprint(ledger: Path) -> dict[str, Path]:
    """Returns the entries of a ledger by the fingerprints of their configs. A folder that does not exist has none."""
    return {entry.stem.rpartition("-")[2]: entry for entry in sorted(ledger.glob("*-seed_*-*.jsonl"))}


def write(entry: Path, config: Config, run: Finished, folder: Path) -> None:
    """Adds a run to the ledger, without the path of its data.

    Raises:
      DataError: The run is not complete. Names its folder.
    """
    fields = settings.flatten(config) | {"data.dir": None}
    lines = [{"config": fields, "result": run.result}, *run.rows]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    _checked(content, entry.stem, folder)
    entry.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(entry, content)


def read(entry: Path) -> Finished:
    """Returns the run of an entry.

    Raises:
      DataError: The entry is damaged, or it is not the entry of the config in it.
    """
    return _checked(entry.read_bytes(), entry.stem, entry)


def _checked(content: bytes, stem: str, path: Path) -> Finished:
    """Returns the run of an entry with this content and name. Errors name `path`."""
    parsed = entries.parse(content)
    if parsed.config:
        name = f"seed_{parsed.config['seed']}-{settings.fingerprint_of(parsed.config)}"
        if not stem.endswith(f"-{name}"):
            raise _damaged(path, f"the config in it is that of {name}")
    if parsed.faults:
        raise _damaged(path, parsed.faults[0])
    return Finished(parsed.result, parsed.rows)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}; remove it to make it again")
