"""The texts that a command reads: FILE, standard input, or --words."""

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from experiments.command_line.command_flags import path
from experiments.errors import UsageError

_HINT = "; to give a text itself, write --words='the text'"


def file_of(command: str, files: Sequence[str], words: str | None) -> str:
    """Returns the FILE of a command line, "-" if it has none. Raises UsageError if it has several, or --words too."""
    if len(files) > 1:
        raise UsageError(f"{command} reads one FILE, not {len(files)}: {' '.join(files)}{_HINT}")
    if files and words is not None:
        raise UsageError(f"{command} reads FILE {files[0]} or --words, not both")
    return files[0] if files else "-"


def opened(file: str, words: str | None) -> AbstractContextManager[Iterable[bytes]]:
    """Returns the text of --words, or the lines of a file; "-" is standard input. Raises UsageError if it cannot be read."""
    if words is not None:
        return nullcontext([os.fsencode(words)])
    if file == "-" and sys.stdin is None:
        raise UsageError("FILE is missing, and standard input is closed")
    try:
        return sys.stdin.buffer if file == "-" else path("FILE", file).open("rb")
    except OSError as error:
        hint = _HINT if isinstance(error, FileNotFoundError) else ""
        raise UsageError(f"FILE {file} cannot be read: {error.strerror}{hint}") from None
