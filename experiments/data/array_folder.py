"""A folder of arrays and other files with a manifest of their SHA-256 sums, which are checked when a file is opened."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.checksum import file_sha256
from experiments.data.corpus import Split
from experiments.data.imdb_archive import one_line
from experiments.errors import DataError, UsageError
from experiments.storage.files import no_leftovers

MANIFEST = "manifest.json"


def create(folder: Path, identity: dict[str, Any], fill: Callable[[Path], None], failed: str, resumable: bool = False) -> None:
    """Creates a folder, which has its name only when it is complete.

    Until then its files are in a hidden folder beside it, which one process has at a time; another one waits, and then uses
    what the first has made. After an error the hidden folder is removed.

    Args:
      folder: The folder.
      identity: What it is made from.
      fill: Writes the files into the hidden folder, where a killed process may have left some.
      failed: The beginning of the error.
      resumable: Whether the hidden folder stays where the process is stopped, because `fill` goes on with what is there.

    Raises:
      DataError: The folder cannot be written, or `fill` raises it.
    """
    hidden, lock = (folder.with_name(f".{folder.name}.{ending}") for ending in ("partial", "lock"))
    try:
        with no_leftovers(folder.parent), _alone(lock):
            if folder.exists():  # another process was faster
                return
            hidden.mkdir(exist_ok=True)
            try:
                fill(hidden)
                write_manifest(hidden, identity)
                hidden.rename(folder)
            except BaseException as error:
                if not resumable or isinstance(error, DataError | UsageError | OSError):
                    shutil.rmtree(hidden, ignore_errors=True)
                raise
    except OSError as error:
        raise DataError(f"{failed} {folder}: {one_line(error)}") from error


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits for a lock and holds it. Its file is removed at the end; a killed process leaves it, without the lock."""
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another process has failed, and has removed the folder that was new to it
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # the process that held it has removed the file
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def write_manifest(folder: Path, identity: dict[str, Any]) -> None:
    """Writes the manifest of a folder that is complete otherwise: what it was made from, and the SHA-256 of each file."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({**identity, "sha256": files}, indent=2))


def open_split(folder: Path, split: str) -> Split:
    """Returns the arrays of a split, mapped into memory. Raises DataError if one is missing or damaged."""
    return Split(*(_array(folder, f"{split}_{name}.npy") for name in ("tokens", "labels")))


def _array(folder: Path, name: str) -> np.ndarray:
    """Returns a mapped array. Never unpickles: a file of objects could run code, even with the checksum that is expected."""
    try:
        return np.load(checked(folder, name), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(folder, name, error) from error


def checked(folder: Path, name: str) -> Path:
    """Returns the path of a file after verifying its checksum. Otherwise an array with a flipped bit would be used silently.

    Raises:
      DataError: The file is missing or damaged.
    """
    try:
        expected = json.loads((folder / MANIFEST).read_bytes())["sha256"][name]
        if file_sha256(folder / name) != expected:
            raise ValueError(f"its sha256 is not the one in {MANIFEST}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, name, error) from error
    return folder / name


def damaged(folder: Path, name: str, error: Exception) -> DataError:
    """Returns the error of a damaged file."""
    return DataError(f"{folder} is damaged ({name}: {one_line(error)}); remove it to make it again")
