"""The SHA-256 of files, which shows that their content has not changed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from experiments.errors import DataError


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal. Raises OSError if the file cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(named: Mapping[str, Path]) -> str:
    """Returns one SHA-256 for files and what they are for. Raises DataError if a file cannot be read."""
    try:
        sums = [f"{name}={file_sha256(path)}" for name, path in named.items()]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()
