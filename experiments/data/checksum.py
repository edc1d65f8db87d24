"""The SHA-256 of files, which shows that their content has not changed."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from experiments.errors import DataError
from experiments.storage import files

LARGE = 2**26  # bytes; a smaller file is hashed again at each start, in less than a tenth of a second
# ns. A change of a page that a program has mapped into memory gives the file no new time while the page waits to be written,
# which is up to 35 s in Linux.
SETTLED = 60 * 10**9


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal. Raises OSError if the file cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Hashed:
    """Files whose content is hashed once for as long as they do not change: 5 GB from a slow disk take a minute.

    The sum of a large file is kept under its path, device, inode, size and times of modification and change. The last one
    (`st_ctime`) is set by the kernel at each change of the content or of the other times, and no program can set it back. A sum
    is kept only if the file had not changed for a minute before it was read, nor while it was read.

    Args:
      named: The files by what they are for.
      folder: Where sums are kept.
    """

    def __init__(self, named: Mapping[str, Path], folder: Path):
        self._named, self._folder, self._new = named, folder, dict[Path, str]()

    def content(self) -> str:
        """Returns one SHA-256 for the files and what they are for. Raises DataError if a file cannot be read."""
        try:
            sums = [f"{name}={self._sum(path)}" for name, path in self._named.items()]
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()

    def keep(self) -> None:
        """Keeps the sums for later processes, where the folder can be written."""
        with contextlib.suppress(OSError):
            for record, found in self._new.items():
                record.parent.mkdir(exist_ok=True)
                files.write_whole(record, found)

    def _sum(self, path: Path) -> str:
        with path.open("rb") as file:  # opened first: a network file system tells the times of today then
            status, started = os.fstat(file.fileno()), time.time_ns()
            record = self._record(path, status)
            known = self._new.get(record) or _kept(record) if status.st_size >= LARGE else None
            if known is not None:
                return known
            found = hashlib.file_digest(file, "sha256").hexdigest()
            unchanged = self._record(path, os.fstat(file.fileno())) == record
        if status.st_size >= LARGE and unchanged and status.st_ctime_ns + SETTLED < started:
            self._new[record] = found
        return found

    def _record(self, path: Path, status: os.stat_result) -> Path:
        told = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return self._folder / hashlib.sha256(repr((path.resolve(), *told)).encode()).hexdigest()[:32]


def _kept(record: Path) -> str | None:
    try:
        found = record.read_bytes()
    except OSError:
        return None
    return found.decode() if re.fullmatch(rb"[0-9a-f]{64}", found) else None
