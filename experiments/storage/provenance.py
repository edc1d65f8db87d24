"""What ran where: a line of `provenance.jsonl` for each attempt at a run, however it ended.

An attempt that is running is in `attempt.json`. A killed process leaves it there, and the next attempt writes its line.
"""

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from experiments.errors import Refusal
from experiments.machine import devices
from experiments.storage import files
from experiments.storage.lock import utc_now
from experiments.storage.names import ATTEMPTS, RUNNING

_KILLED = "it left no record: its process was killed, or the machine stopped"


class Attempt:
    """An attempt at a run, which records how far it came.

    Args:
      workdir: The run folder, whose lock is held.
      record: What is known at the start.
    """

    def __init__(self, workdir: Path, record: dict[str, Any]):
        self._path, self._record = workdir / RUNNING, record
        self.saved(record["first_step"])

    def saved(self, step: int) -> None:
        """Records the step of a checkpoint, up to which nothing can be lost any more."""
        self._record["last_step"] = step
        files.write_json(self._path, self._record)

    def end(self, code: int, reason: str) -> None:
        """Writes the line of the attempt."""
        ended = self._record | {"ended": utc_now(), "exit_code": code, "reason": reason}
        _append(self._path.with_name(ATTEMPTS), ended)
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def attempt(workdir: Path, first_step: int, **known: Any) -> Iterator[Attempt]:
    """Records an attempt, from its start to whatever ends the block.

    Args:
      workdir: The run folder, whose lock is held.
      first_step: The number of steps done before.
      **known: What else the record holds.
    """
    _end_killed(workdir)
    record = {"started": utc_now(), "argv": sys.argv, "pid": os.getpid(), "host": socket.gethostname()}
    flags = {name: os.environ[name] for name in ("XLA_FLAGS", "JAX_PLATFORMS", "LIBTPU_INIT_ARGS") if name in os.environ}
    record |= {"python": platform.python_version(), "flags": flags, **software_and_device(), **known}
    running = Attempt(workdir, record | {"first_step": first_step})
    try:
        yield running
    except BaseException as error:
        code = error.exit_code if isinstance(error, Refusal) else Refusal.exit_code
        with contextlib.suppress(OSError):  # for example, the disk is full: the first error is the one to tell
            running.end(code, str(error) if isinstance(error, Refusal) else f"{type(error).__name__}: {error}")
        raise
    running.end(0, "finished")


def _end_killed(workdir: Path) -> None:
    """Writes the line of an attempt that could not write its own."""
    try:
        record = files.read_object(workdir / RUNNING)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        record = {"damaged": str(error)}
    if not _has_line(workdir / ATTEMPTS, record):
        _append(workdir / ATTEMPTS, record | {"ended": None, "exit_code": None, "reason": _KILLED})
    (workdir / RUNNING).unlink()


def _has_line(path: Path, record: dict[str, Any]) -> bool:
    """Returns whether the attempt has a line already: it was killed between writing it and removing its record."""
    with contextlib.suppress(OSError, ValueError):
        return any(record.items() <= line.items() for line in files.read_lines(path) if line.get("pid") == record.get("pid"))
    return False


def _append(path: Path, record: dict[str, Any]) -> None:
    """Appends a line. An incomplete last line, of a writer that was killed, is removed before."""
    lines = path.read_bytes() if path.exists() else b""
    complete = lines[: lines.rfind(b"\n") + 1]
    files.write_whole(path, complete + json.dumps(record, default=str).encode() + b"\n")


def software_and_device() -> dict[str, Any]:
    """Returns the versions, the device and the commit of a run ("+" if files had changed, None outside of git)."""
    device = jax.local_devices()[0]
    return {
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "device": f"{device.platform} × {jax.local_device_count()}, {devices.kind(device)}",
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        root = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
