"""The source of `config.data.path`: a file of texts and labels, or one for each split."""

import functools
import re
from pathlib import Path
from typing import Any

from experiments.data import text_files
from experiments.data.checksum import Hashed
from experiments.data.columns import Wanted
from experiments.data.sources import SPLITS, Source
from experiments.errors import UsageError

_NAMED = f"(?:{'|'.join(SPLITS)})="


def source(data: Any, sums: Path) -> Source:
    """Returns the source of `config.data`. The hashes of its files are kept in the folder `sums`.

    Raises:
      UsageError: `config.data.path` names no file of a format that is read.
    """
    found = paths(data.path)
    for split, path in found.items():
        if not path.is_file():
            raise UsageError(f"config.data.path={data.path}: {path}, the file of {split}, is not there or not a file")
    wanted = Wanted(data.text, data.label)
    readers = {
        split: functools.partial(text_files.reader_of(path), path, wanted, data.encoding) for split, path in found.items()
    }
    hashed = Hashed(found, sums)
    return Source(data.path, readers, hashed.content, keep=hashed.keep)


def paths(text: str) -> dict[str, Path]:
    """Returns the files of train=FILE,test=FILE, or of a single name, which is that of train. Raises UsageError."""
    if not re.match(_NAMED, text):
        return {"train": Path(text)}
    found: dict[str, Path] = {}
    for part in re.split(f",(?={_NAMED})", text):  # a comma may be part of a name
        split, _, name = part.partition("=")
        if split in found:
            raise UsageError(f"config.data.path={text} names two files of {split}")
        found[split] = Path(name)
    if "train" not in found:
        raise UsageError(f"config.data.path={text} must name a file of train")
    return found
