"""A folder of arrays and other files with a manifest of their SHA-256 sums, which are checked when a file is opened."""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.checksum import file_sha256
from experiments.data.corpus import Split
from experiments.data.imdb_archive import one_line
from experiments.errors import DataError
from experiments.storage.files import no_leftovers

MANIFEST = "manifest.json"


def create(folder: Path, identity: dict[str, Any], fill: Callable[[Path], None], failed: str) -> None:
    """Creates a folder, which has its name only when it is complete.

    Args:
      folder: The folder.
      identity: What it is made from.
      fill: Writes the files into a folder, which is not in use by others.
      failed: The beginning of the error.

    Raises:
      DataError: The folder cannot be written.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with no_leftovers(folder.parent), contextlib.ExitStack() as stack:
            staging.mkdir()
            stack.callback(shutil.rmtree, staging, ignore_errors=True)
            fill(staging)
            write_manifest(staging, identity)
            staging.rename(folder)
    except OSError as error:
        if not folder.exists():  # otherwise another process was faster, with the same arrays
            raise DataError(f"{failed} {folder}: {one_line(error)}") from error


def write_manifest(folder: Path, identity: dict[str, Any]) -> None:
    """Writes the manifest of a folder that is complete otherwise: what it was made from, and the SHA-256 of each file."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
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
