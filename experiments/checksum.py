"""The SHA-256 of a file: what tells that it still holds what was written."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """In hexadecimal. Raises OSError where the file cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
