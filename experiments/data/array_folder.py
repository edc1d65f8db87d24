"""A folder of arrays and other files with a manifest of their SHA-256 sums, which are checked when a file is opened."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.checksum import file_sha256
from experiments.data.corpus import Split
from experiments.errors import DataError

MANIFEST = "manifest.json"


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
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{folder} is damaged ({name}: {reason}); remove it to make it again")
