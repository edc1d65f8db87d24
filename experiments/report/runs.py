"""Reads runs from run folders and from the ledger into plain records, whatever state they are in. Imports no JAX."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.errors import UsageError, first_line
from experiments.fields import GROUPS, flattened, with_later_fields
from experiments.report import endings, measured, pages
from experiments.storage import entries, files
from experiments.storage.names import BOARD, CHECKPOINTS, CONFIG, METRICS, RESULT

MUST_BE = "it must be a run folder, a folder with run folders below it, or a ledger file or folder"
_OF_A_RUN = (CONFIG, METRICS, RESULT)  # a folder with one of these is a run folder


@dataclass(frozen=True)
class Run:
    """A run, of which any part may be missing.

    Attributes:
      name: Its path.
      config: The fields of its config by their dotted names; empty if they are damaged.
      rows: The rows of its epochs, up to the first damaged one.
      result: The content of result.json; empty if there is none.
      ending: How its last attempt has ended.
      damage: What is wrong with its files, a line each.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    ending: endings.Ending = endings.UNKNOWN
    damage: Sequence[str] = ()

    @property
    def state(self) -> str:
        """One of "finished", "running", "unfinished", "failed", "diverged" and "damaged"."""
        if self.damage:
            return "damaged"
        return "finished" if self.result else self.ending.state

    @property
    def label(self) -> str | None:
        """The name of its page, where the run tells it."""
        label = self.result.get("label", self.ending.page)
        return label if isinstance(label, str) and label else None


def read(arguments: Sequence[str]) -> list[Run]:
    """Reads all runs below some paths, each once.

    Raises:
      UsageError: There is no path, or one of them is missing or holds no run.
    """
    if not arguments:
        raise UsageError(f"RUNS is missing: {MUST_BE}")
    found: dict[Path, Run] = {}
    for argument in arguments:
        places = list(_places(Path(argument)))
        if not places:
            raise UsageError(f"RUNS={argument} holds no run: {MUST_BE}")
        for place in places:
            if (resolved := place.resolve()) not in found:
                found[resolved] = _read_folder(place) if place.is_dir() else _read_entry(place)
    return list(found.values())


def _places(path: Path) -> Iterator[Path]:
    """Returns the run folders and ledger files at a path or below it, in the order of their names."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"RUNS={error.filename} cannot be read: {error.strerror}")

    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {first_line(error)}"
        raise UsageError(f"RUNS={path} {reason}: {MUST_BE}") from None
    if not path.is_dir():
        if _is_entry(path) is False:
            raise UsageError(f"RUNS={path} holds no run: the first line of a ledger file has a config and a result")
        yield path
        return
    for folder, below, names in os.walk(path, onerror=refuse):
        below.sort()
        if not set(names).isdisjoint(_OF_A_RUN):
            below[:] = [name for name in below if name not in (CHECKPOINTS, BOARD)]
            yield Path(folder)
        else:
            entries = [Path(folder, name) for name in sorted(names) if name.endswith(".jsonl")]
            yield from (entry for entry in entries if _is_entry(entry) is not False)


def _is_entry(path: Path) -> bool | None:
    """Returns whether a file is of the ledger, or None if its first line is damaged."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
    except OSError:
        return None
    except (ValueError, RecursionError):
        return None if path.suffix == ".jsonl" else False
    return isinstance(first, dict) and {"config", "result"} <= first.keys()


def _read_folder(folder: Path) -> Run:
    damage: list[str] = []
    config: dict[str, Any] = {}
    result: dict[str, Any] = {}
    try:
        config = _checked_config(flattened(with_later_fields(files.read_object(folder / CONFIG))))
    except entries.DAMAGE as error:
        damage.append(entries.fault(CONFIG, error))
    try:
        if (folder / RESULT).exists():
            result = _checked_result(entries.checked_result(files.read_object(folder / RESULT)))
    except entries.DAMAGE as error:
        damage.append(entries.fault(RESULT, error))
    rows: list[dict[str, Any]] = []
    try:
        if (folder / METRICS).exists() or result:
            rows = entries.parse_rows((folder / METRICS).read_bytes(), 1, f"{METRICS}, line", damage)
    except OSError as error:
        damage.append(entries.fault(METRICS, error))
    if result:
        entries.compare(result, rows, result.get("epochs", len(rows)), damage)
    return Run(str(folder), config, rows, result, endings.read(folder), damage)


def _read_entry(path: Path) -> Run:
    try:
        entry = entries.parse(path.read_bytes())
        config = _checked_config(entry.config) if entry.config else {}
        return Run(str(path), config, entry.rows, _checked_result(entry.result), damage=entry.faults)
    except entries.DAMAGE as error:
        return Run(str(path), damage=[entries.fault("line 1", error)])


def _checked_config(flat: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config in the order of the pages. Raises ValueError if they are not those of a config."""
    if "model.learned_positions" in flat:  # the ledger's first runs, in whose configs positions were a flag
        flat["model.positions"] = "learned" if flat.pop("model.learned_positions") else "none"
    fields = pages.fields(flat.get("model.body"))
    if unknown := sorted(flat.keys() - set(fields)):
        raise ValueError(f"{unknown[0]} is not a field of the config")
    config = {name: flat[name] for name in fields}
    for name, value in config.items():
        if isinstance(value, dict) or name in GROUPS:
            raise ValueError(f"{name} is not a value")
    return entries.whole_numbers(config)


def _checked_result(result: dict[str, Any]) -> dict[str, Any]:
    measured.of(result)
    return result
