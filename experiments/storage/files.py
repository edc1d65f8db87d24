"""Files and folders that are written completely or not at all, and JSON that is checked when it is read."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import UsageError


def sync(path: Path) -> None:
    """Waits until a file or a folder is on the disk, so that a power failure cannot take it back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file either completely or not at all: after an error it is as it was."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(part)
        part.replace(path)
        sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, either completely or not at all. Raises ValueError for NaN, which JSON does not have."""
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Returns the object that a text in JSON is. Raises ValueError, which begins with `where`, if it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{where} is not a JSON object")
    return content


def read_object(path: Path) -> dict[str, Any]:
    """Returns the object of a JSON file. Raises OSError, or ValueError with the name of the file and the reason."""
    return parse_object(path.read_bytes(), path.name)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSON Lines file. A last line that is not complete is left out: its writer was killed.

    Raises:
      OSError: The file cannot be read.
      ValueError: Another line is not a JSON object. Names the file and the line.
    """
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is incomplete
    return [parse_object(line, f"{path.name}, line {number}") for number, line in enumerate(lines, start=1)]


def refuse_unwritable(name: str, folder: Path) -> None:
    """Checks that a folder can be written. Creates nothing. Raises UsageError otherwise, with the name of its flag."""
    path = folder.absolute()
    try:
        str(path).encode()  # Orbax needs UTF-8
        parent = next(each for each in (path, *path.parents) if each.exists())
    except UnicodeEncodeError:
        raise UsageError(f"{name}={os.fsencode(folder)!r} must be UTF-8") from None
    except OSError as error:  # for example, a name that is too long
        raise UsageError(f"{name}={folder} cannot be written: {error.strerror}") from None
    if not parent.is_dir():
        raise UsageError(f"{name}={folder} cannot be written: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"{name}={folder} cannot be written: {parent} is read-only")


@contextlib.contextmanager
def no_leftovers(directory: Path) -> Iterator[None]:
    """Creates a directory. If the block fails, removes it and its parents again where they are new and empty."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
