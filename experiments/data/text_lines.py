"""Lines of text files, plain or gzipped, with errors that name the file, the line and the reason."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from experiments.errors import DataError

LARGEST = 10_000_000  # characters of a text, and of a line: a quote that is never closed would make a text of the whole file
_GZIP = b"\x1f\x8b"


def lines(path: Path, encoding: str | None) -> Iterator[str]:
    """Yields the lines of a file with their ends. Only \\n, \\r and both end a line.

    Args:
      path: The file.
      encoding: Its encoding; None: UTF-8, with a byte order mark or without.

    Raises:
      DataError: The file cannot be read or decoded, its gzip is damaged, or a line is longer than LARGEST.
    """
    name, number = encoding or "utf-8", 0
    try:
        with (
            _opened(path) as binary,
            io.TextIOWrapper(binary, "utf-8-sig" if encoding is None else encoding, newline="") as file,
        ):
            while line := file.readline(LARGEST):
                number += 1
                if len(line) == LARGEST:
                    raise DataError(f"{path}, line {number} is longer than {LARGEST:,} characters, the longest that is read")
                yield line
    except UnicodeError:
        raise DataError(
            f"{path}{_first_bad_line(path, name)} is not {name}: name its encoding with config.data.encoding"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not an intact gzip file, after line {number}: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == _GZIP
        with gzip.GzipFile(fileobj=file, mode="rb") if packed else contextlib.nullcontext(file) as content:
            yield content  # pyright: ignore[reportReturnType] (a GzipFile reads bytes)


def _first_bad_line(path: Path, encoding: str) -> str:
    """Returns ", line 3" with the first line that cannot be decoded, or "" if its lines alone cannot tell."""
    with _opened(path) as binary:
        for number, line in enumerate(iter(lambda: binary.readline(4 * LARGEST), b""), start=1):
            try:
                line.decode(encoding)
            except UnicodeError:
                return f", line {number}"
    return ""
