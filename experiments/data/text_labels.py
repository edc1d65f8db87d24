"""The first pass over labelled texts: every row is checked, the labels get their indices, and the splits are chosen."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data.sources import SPLITS, Source
from experiments.errors import DataError, UsageError, printable

MOST_CLASSES = 65_536
TRAIN, VALIDATION, TEST = range(3)
_SHARE = 0.1
_INTEGER = re.compile(r"-?[0-9]+")
_SHOWN = 5  # names in a message


class Shares(NamedTuple):
    """How `config.data` divides texts into splits. None is a tenth."""

    validation: float | None
    test: float | None
    seed: int


class Labelled(NamedTuple):
    """What the first pass has found.

    Attributes:
      classes: The names of the labels, in the order of their indices.
      labels: int8, or int32 for more than 127 classes, `[rows]`: those of the files of "train", "validation" and "test", in
        this order.
      splits: uint8 `[rows]`, for each row TRAIN, VALIDATION or TEST.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    splits: np.ndarray


def read(source: Source, shares: Shares, progress: Iterator[None]) -> Labelled:
    """Reads all rows once.

    Args:
      source: The rows.
      shares: How they are divided.
      progress: Is advanced once for each row.

    Raises:
      UsageError: A share is given for a split that has a file.
      DataError: A row is bad, a split has no rows or a label that train lacks, or a class has too few texts.
    """
    _check_shares(source, shares)
    found, indices = _indices(source, progress)
    counts = {name: np.bincount(found[name], minlength=len(indices)) for name in found}
    _check_classes(source, list(indices), counts)
    order = _ordered(indices, source.classes)
    rank = np.empty(len(indices), np.int32)
    rank[[indices[name] for name in order]] = np.arange(len(order))
    ranked = {name: rank[labels] for name, labels in found.items()}
    splits = [_divided(source, order, ranked["train"], shares)]
    splits += [np.full(len(ranked[name]), SPLITS.index(name), np.uint8) for name in SPLITS[1:] if name in ranked]
    labels = np.concatenate([ranked[name] for name in SPLITS if name in ranked])
    return Labelled(order, labels.astype(np.int8 if len(order) <= 127 else np.int32), np.concatenate(splits))


def _check_shares(source: Source, shares: Shares) -> None:
    for name, share in (("validation", shares.validation), ("test", shares.test)):
        if share is not None and name in source.splits:
            raise UsageError(f"config.data.{name}_share={share} must be None: {source.name} has {name} texts of its own")


def _indices(source: Source, progress: Iterator[None]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Returns the labels of each split in the order in which they were first seen, and that order."""
    indices: dict[str, int] = {}
    found = {}
    for name in (name for name in SPLITS if name in source.splits):
        labels = []
        for _, label in source.splits[name]():
            next(progress)
            labels.append(indices.setdefault(label, len(indices)))
            if len(indices) > MOST_CLASSES:
                raise DataError(f"{source.name} has more than {MOST_CLASSES:,} labels: is config.data.label the right column?")
        if not labels:
            raise DataError(f"{source.name} has no {name} texts")
        found[name] = np.array(labels, np.int32)
    return found, indices


def _check_classes(source: Source, names: Sequence[str], counts: dict[str, np.ndarray]) -> None:
    train = counts["train"]
    for split, of_split in counts.items():
        if unknown := [name for name, here, known in zip(names, of_split, train, strict=True) if here and not known]:
            them = "it" if len(unknown) == 1 else "them"
            raise DataError(f"{source.name}: {split} has {_listed(unknown, 'label')}, and train has none of {them}")
    if len(names) < 2:
        raise DataError(f"{source.name} has one label, {printable(names[0])!r}: a classifier needs two")
    if single := [name for name, count in zip(names, train, strict=True) if count == 1]:
        raise DataError(f"{source.name} has one text only with {_listed(single, 'label')}: each needs two or more")


def _listed(names: Sequence[str], noun: str) -> str:
    shown = ", ".join(repr(printable(name)) for name in sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"the {noun} {shown}" if len(names) == 1 else f"the {len(names)} {noun}s {shown}"


def _ordered(names: Collection[str], given: tuple[str, ...] | None) -> tuple[str, ...]:
    if given is not None:
        return tuple(name for name in given if name in names)
    if all(map(_INTEGER.fullmatch, names)):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _divided(source: Source, classes: Sequence[str], labels: np.ndarray, shares: Shares) -> np.ndarray:
    """Returns the split of each row of the train file: at random, with the same shares of each class."""
    splits = np.full(len(labels), TRAIN, np.uint8)
    test = None if "test" in source.splits else shares.test or _SHARE
    validation = None if "validation" in source.splits else shares.validation or _SHARE
    random = np.random.RandomState(shares.seed)  # its numbers are the same in all versions of NumPy
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=len(classes)))[:-1])
    for name, rows in zip(classes, by_class, strict=True):
        shuffled = random.permutation(rows)
        first = 0 if test is None else _share_of(len(rows), test)
        last = first + (0 if validation is None else _share_of(len(rows) - first, validation))
        if last >= len(rows):
            raise DataError(
                f"{source.name} has {len(rows)} texts with the label {printable(name)!r}: divided into train, validation and "
                f"test they leave none to train on"
            )
        splits[shuffled[:first]], splits[shuffled[first:last]] = TEST, VALIDATION
    return splits


def _share_of(count: int, share: float) -> int:
    return max(1, round(count * share))
