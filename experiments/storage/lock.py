"""One run folder, one writer: a lock that the kernel drops when its process ends, however it ends.

Imports the standard library only, so that a second process is told within a fraction of a second.
"""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.errors import Refusal, UsageError

LOCK = "LOCK"  # it stays in the folder: removing it would let two processes lock two files of the same name
_PATIENCE = 0.2  # seconds, in which a process that only looks whether the folder is in use has gone


class Busy(Refusal):
    """Another process writes to the run folder."""

    exit_code = 5


def refuse_if_busy(workdir: Path, flag: str = "--workdir") -> None:
    """Raises Busy if another process writes to a folder. Creates nothing. `flag` is the one that names the folder."""
    try:
        descriptor = os.open(workdir / LOCK, os.O_RDONLY)
    except OSError:
        return  # nobody has ever locked it, or it cannot be read: `hold` will say so
    try:
        _lock(descriptor, fcntl.LOCK_SH, f"{flag}={workdir}")
    finally:
        os.close(descriptor)


def is_held(workdir: Path) -> bool:
    """Returns at once whether a process writes to a folder now. Creates nothing."""
    try:
        descriptor = os.open(workdir / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class Held:
    """A lock that this process holds.

    Args:
      workdir: The run folder.
      descriptor: That of its locked file.
      flag: The one that names the folder.
    """

    def __init__(self, workdir: Path, descriptor: int, flag: str):
        self.workdir, self._descriptor, self._flag = workdir, descriptor, flag

    def check(self) -> None:
        """Raises Refusal if the folder or its lock has been removed or replaced: others may write there."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), (self.workdir / LOCK).stat()):
                return
        raise Refusal(f"{self._flag}={self.workdir} or its file {LOCK} was removed while the run was writing there")


@contextlib.contextmanager
def hold(workdir: Path, flag: str = "--workdir") -> Iterator[Held]:
    """Holds the lock of a run folder that exists. If the block fails in an empty folder, the file of the lock goes again.

    Args:
      workdir: The run folder.
      flag: The one that names it.

    Raises:
      Busy: Another process holds it. Names its process, its host and since when.
      UsageError: The folder cannot be written.
    """
    descriptor = _locked(workdir, flag)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_now()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
        yield Held(workdir, descriptor, flag)
    except BaseException:
        if workdir.exists() and [path.name for path in workdir.iterdir()] == [LOCK]:
            (workdir / LOCK).unlink()
        raise
    finally:
        os.close(descriptor)


def _locked(workdir: Path, flag: str) -> int:
    """Returns the descriptor of the locked file, which nobody has removed before it was locked."""
    while True:
        try:
            descriptor = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UsageError(f"{flag}={workdir} cannot be written: {error.strerror}") from None
        try:
            _lock(descriptor, fcntl.LOCK_EX, f"{flag}={workdir}")
        except BaseException:
            os.close(descriptor)
            raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def utc_now() -> str:
    """Returns the time in UTC, as "2026-11-26T15:04:05Z"."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _lock(descriptor: int, kind: int, folder: str) -> None:
    """Locks a file. `folder` names what it locks, as in "--workdir=runs/a"."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Busy(f"{folder} is in use{_by(descriptor)}") from None
        except OSError as error:  # a file system without locks
            raise UsageError(f"{folder} cannot be locked: {error.strerror}") from None
        time.sleep(0.01)


def _by(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f" by process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # it is being written
        return " by another process"
