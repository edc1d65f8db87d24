"""Pairs of texts from files with two columns, a source and a target with a tab between them, and no line with names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import file_source, text_lines
from experiments.errors import UsageError

SHARE = 0.1  # of validation, and of test, where the config has none


class Row(NamedTuple):
    """A pair, and what an error calls it."""

    source: str
    target: str
    where: str


def read(data: Any) -> dict[str, list[Row]]:
    """Reads the splits of `config.data.path`, a file or train=FILE,test=FILE.

    Raises:
      UsageError: A file is not there, a row has not two columns, or a split would be empty.
      DataError: A file cannot be read or decoded.
    """
    splits = {}
    for split, path in file_source.paths(data.path).items():
        if not path.is_file():
            raise UsageError(f"config.data.path={data.path}: {path}, the file of {split}, is not there or not a file")
        splits[split] = list(_rows(path, data.encoding))
    for split, share in (("test", data.test_share), ("validation", data.validation_share)):
        if split in splits and share is not None:
            raise UsageError(f"config.data.{split}_share={share} must be None: {data.path} names a file of {split}")
    parts = [name for name in ("test", "validation") if name not in splits]
    rng = np.random.default_rng(data.split_seed)
    for part in parts:  # a share of what is no test pair is that of validation
        share = data.test_share if part == "test" else data.validation_share
        splits["train"], splits[part] = _divided(splits["train"], SHARE if share is None else share, rng)
    for split, rows in splits.items():
        if not rows:
            raise UsageError(f"config.data.path={data.path} has too few rows: none is left for {split}")
    return splits


def _rows(path: Path, encoding: str | None) -> Iterator[Row]:
    for number, line in enumerate(text_lines.lines(path, encoding), start=1):
        if not line.strip() and "\t" not in line:
            continue
        where, columns = f"config.data.path: {path}, line {number}", line.rstrip("\r\n").split("\t")
        if len(columns) != 2:
            plural = "" if len(columns) == 1 else "s"
            raise UsageError(
                f"{where} has {len(columns)} column{plural}: it must have two, a source and a target, and a tab between them"
            )
        for name, text in zip(("source", "target"), columns, strict=True):
            if not text.strip():
                raise UsageError(f"{where}: the {name} is empty")
        yield Row(columns[0], columns[1], where)


def _divided(rows: list[Row], share: float, rng: np.random.Generator) -> tuple[list[Row], list[Row]]:
    """Returns the rows that stay, and those that are taken, at least one; each in the order of the file."""
    taken = set(rng.permutation(len(rows))[: max(1, round(share * len(rows)))].tolist())
    return [row for i, row in enumerate(rows) if i not in taken], [row for i, row in enumerate(rows) if i in taken]
