"""Checkpoints: Orbax writes the arrays; a manifest of SHA-256 sums says whether they are still what was written.

    checkpoints/last/STEP/   the state after STEP steps: parameters, optimizer, sums of the epoch so far. The newest two.
    checkpoints/best/STEP/   the parameters of the epoch with the highest validation accuracy.
    checkpoints/bad-KIND-STEP-REASON/   what was damaged, moved aside

Each of them holds `arrays/` (Orbax), `meta.json` and `manifest.json`, and has its name only when it is complete. Orbax alone
is not enough: it is atomic, but restores a flipped bit silently.
"""

import contextlib
import errno
import itertools
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from experiments.data.checksum import file_sha256
from experiments.errors import DataError, UsageError, first_line, warn
from experiments.machine import processes
from experiments.storage.files import read_object, sync, write_json
from experiments.storage.names import CHECKPOINTS as FOLDER

Kind = Literal["last", "best"]
KINDS: tuple[Kind, ...] = ("last", "best")
_ARRAYS, _META, _MANIFEST = "arrays", "meta.json", "manifest.json"
_BAD, _PART, _OLD = "bad-", ".part", ".old"
_OVERHEAD = 2**17  # bytes of a checkpoint beside its arrays
_REASON = 60  # characters of a reason in the name of a folder
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError)  # reading damaged files raises these


class Checkpoint(NamedTuple):
    """A checkpoint that was read and verified.

    Attributes:
      step: The number of steps after which it was saved.
      arrays: Nested dictionaries and lists of NumPy arrays.
      meta: What was saved with them, as JSON.
    """

    step: int
    arrays: Any
    meta: dict[str, Any]


def save(workdir: Path, kind: Kind, step: int, arrays: Any, meta: dict[str, Any]) -> None:
    """Saves a checkpoint, completely or not at all.

    Args:
      workdir: The run folder.
      kind: "last" or "best".
      step: The number of steps done. A checkpoint of the same kind and step is replaced.
      arrays: Nested dictionaries and lists of NumPy arrays.
      meta: What else is saved, as JSON.

    Raises:
      OSError: It cannot be written. Earlier checkpoints are as they were.
    """
    target = workdir / FOLDER / kind / str(step)
    staging, old = (target.with_name(f"{step}{suffix}") for suffix in (_PART, _OLD))
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        _write_arrays(staging / _ARRAYS, arrays)
        write_json(staging / _META, meta)
        files = [path for path in sorted(staging.rglob("*")) if path.is_file()]
        for path in files:
            sync(path)
        write_json(staging / _MANIFEST, {path.relative_to(staging).as_posix(): file_sha256(path) for path in files})
        if target.exists():
            target.rename(old)
        staging.rename(target)
        sync(target.parent)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_arrays(folder: Path, arrays: Any) -> None:
    needed = _OVERHEAD + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    if (free := shutil.disk_usage(folder.parent).free) < needed:  # Orbax would fail in threads of its own
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {free:,} of {needed:,} bytes are free")
    try:
        with _orbax() as checkpointer, _silence():
            checkpointer.save(folder.absolute(), arrays)
    except Exception as error:  # of many kinds
        raise OSError(f"{folder} cannot be written: {first_line(error)}") from None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Leaves out what Orbax' threads print of errors that Orbax raises too."""
    hook = threading.excepthook
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.disable(logging.NOTSET)


def import_orbax() -> Any:
    """Returns Orbax. Importing it takes half a second, so it is done when there is something to save or to restore."""
    import orbax.checkpoint

    return orbax.checkpoint


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax' checkpointer for NumPy arrays in this process alone, whichever others take part in the run."""
    ocp, index = import_orbax(), processes.index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"attn{index}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        yield checkpointer


def steps_of(workdir: Path, kind: Kind) -> list[int]:
    """Returns the steps of the complete checkpoints of a kind, verified or not, in ascending order."""
    folder = workdir / FOLDER / kind
    with contextlib.suppress(OSError):
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    return []


def keep(workdir: Path, kind: Kind, steps: set[int]) -> None:
    """Removes the checkpoints of a kind at all other steps, and what killed processes have left."""
    folder = workdir / FOLDER / kind
    names = {str(step) for step in steps}
    for path in folder.iterdir() if folder.exists() else ():
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)


def read(workdir: Path, kind: Kind, step: int) -> Checkpoint:
    """Reads and verifies a checkpoint.

    Raises:
      DataError: It is missing or damaged. The message is the reason alone.
    """
    folder = workdir / FOLDER / kind / str(step)
    try:
        for name, expected in read_object(folder / _MANIFEST).items():
            if file_sha256(folder / name) != expected:
                raise ValueError(f"{name} has changed since it was written")
        meta = read_object(folder / _META)
        with _orbax() as checkpointer:
            return Checkpoint(step, checkpointer.restore((folder / _ARRAYS).absolute()), meta)
    except _DAMAGE as error:
        raise DataError(_reason(error, folder)) from None


def _reason(error: BaseException, folder: Path) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{Path(error.filename).name} is missing"
    return first_line(error).replace(f"{folder}/", "")


def newest(workdir: Path, kind: Kind, aside: bool) -> Checkpoint | None:
    """Returns the newest valid checkpoint, and says on stderr which ones were damaged.

    Args:
      workdir: The run folder.
      kind: "last" or "best".
      aside: Whether damaged ones are moved to `bad-KIND-STEP-REASON`. Only for the process that holds the lock.

    Returns:
      None if no checkpoint of this kind was ever completed.

    Raises:
      DataError: There are checkpoints, or there were, and none is valid.
    """
    if aside:
        _recover(workdir, kind)
    damaged: dict[int, str] = {}
    while left := [step for step in steps_of(workdir, kind) if step not in damaged]:
        step = left[-1]
        try:
            checkpoint = read(workdir, kind, step)
        except DataError as error:
            if step not in steps_of(workdir, kind):
                continue  # the run that is still training has replaced it
            damaged[step] = str(error)
            continue
        _tell(workdir, kind, damaged, aside, f"the one of step {step} is used")
        return checkpoint
    _tell(workdir, kind, damaged, aside, "no other is left")
    if damaged or any((workdir / FOLDER).glob(f"{_BAD}{kind}-*")):
        raise DataError(
            f"--workdir={workdir}: every checkpoint of kind {kind} is damaged; remove the folder to train from the start"
        )
    return None


def set_aside(workdir: Path, kind: Kind, step: int, reason: str, then: str) -> None:
    """Moves a damaged checkpoint to `bad-KIND-STEP-REASON`, and says so on stderr. `then` says what happens instead."""
    _tell(workdir, kind, {step: reason}, True, then)


def _recover(workdir: Path, kind: Kind) -> None:
    """Gives a checkpoint its name again that a killed process was about to replace."""
    for old in (workdir / FOLDER / kind).glob(f"*{_OLD}"):
        if not old.with_suffix("").exists():
            old.rename(old.with_suffix(""))


def _tell(workdir: Path, kind: Kind, damaged: dict[int, str], aside: bool, then: str) -> None:
    for step, reason in damaged.items():
        there = (workdir / FOLDER / kind / str(step)).exists()
        moved = f", moved to {FOLDER}/{_move(workdir, kind, step, reason)}" if aside and there else ""
        warn(f"checkpoint {kind}/{step} is damaged ({reason}){moved}; {then}")


def _move(workdir: Path, kind: Kind, step: int, reason: str) -> str:
    words = re.sub(r"[^A-Za-z0-9.]+", "-", reason)[:_REASON].strip("-.")
    name = f"{_BAD}{kind}-{step}-{words}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    free = next(path for path in (workdir / FOLDER / name for name in names) if not path.exists())
    (workdir / FOLDER / kind / str(step)).rename(free)
    return free.name


def read_newest(workdir: Path, kind: str) -> Checkpoint:
    """Returns the newest valid checkpoint for a reader, which changes nothing.

    Raises:
      UsageError: `kind` is not a kind, or the run has no checkpoint yet.
      DataError: None is valid.
    """
    if kind not in KINDS:
        raise UsageError(f"--checkpoint={kind} must be one of {', '.join(KINDS)}")
    found = newest(workdir, kind, aside=False)
    if found is None:
        raise UsageError(f"--workdir={workdir} holds no checkpoint of kind {kind}")
    return found
