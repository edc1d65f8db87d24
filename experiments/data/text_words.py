"""The second pass over labelled texts: words are counted, in parts that are kept, so that a pass that was stopped goes on."""

import collections
import heapq
import itertools
import json
import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.data.tokenizer import WordRules
from experiments.storage import files

MOST_WORDS = 1_000_000  # the most frequent words, which are kept; rarer ones are treated like words that no training text has
PART_BYTES = 2**26  # of the texts of a part, whose counts are in memory


class Counted(NamedTuple):
    """What the second pass has found.

    Attributes:
      words: The most frequent words by rank, at most MOST_WORDS.
      longest: The number of words of the longest text.
    """

    words: tuple[bytes, ...]
    longest: int


def count(folder: Path, texts: Callable[[int], Iterable[tuple[bytes, bool]]], rules: WordRules) -> Counted:
    """Counts the words of texts in bounded memory, whatever the number of texts.

    Args:
      folder: Where the counts of the parts are kept.
      texts: Returns the texts behind so many, each with whether its words count.
      rules: What a word is.

    Raises:
      DataError: Reading raises it.
      OSError: The counts cannot be kept.
    """
    parts = sorted(folder.glob("words_*.json"))
    done = [json.loads(part.read_bytes()) for part in parts]
    row = done[-1]["rows"] if done else 0
    longest = max((part["longest"] for part in done), default=0)
    counts, size = collections.Counter[bytes](), 0
    for text, counted in texts(row):
        row, size = row + 1, size + len(text)
        if counted:
            words = rules.split(text)
            counts.update(words)
            longest = max(longest, len(words))
        if size >= PART_BYTES:
            _write(folder, len(done), counts, {"rows": row, "longest": longest})
            done.append({"rows": row, "longest": longest})
            counts, size = collections.Counter(), 0
    _write(folder, len(done), counts, {"rows": row, "longest": longest})
    return Counted(_ranked(folder, len(done) + 1), longest)


def _write(folder: Path, number: int, counts: collections.Counter[bytes], marker: dict[str, int]) -> None:
    """Keeps the counts of a part, sorted by the words. The marker is written last: only with it, the part counts."""
    words = sorted(counts)
    (folder / f"words_{number:06}.txt").write_bytes(b"".join(word + b"\n" for word in words))
    np.save(folder / f"words_{number:06}.npy", np.array([counts[word] for word in words], np.int64))
    for ending in ("txt", "npy"):
        files.sync(folder / f"words_{number:06}.{ending}")
    files.write_json(folder / f"words_{number:06}.json", marker)


def _ranked(folder: Path, parts: int) -> tuple[bytes, ...]:
    """Returns the most frequent words of all parts, as `tokenizer.rank_words` orders them, and removes the parts."""
    merged = heapq.merge(*(_part(folder, number) for number in range(parts)))
    sums = ((-sum(count for _, count in same), word) for word, same in itertools.groupby(merged, key=operator.itemgetter(0)))
    numbered = _Numbered(sums)
    found = heapq.nsmallest(MOST_WORDS, numbered)
    if numbered.count > MOST_WORDS:
        print(f"The {MOST_WORDS:,} most frequent of {numbered.count:,} words are kept.", file=sys.stderr)
    return tuple(word for _, word in found)


def _part(folder: Path, number: int) -> Iterator[tuple[bytes, int]]:
    counts = np.load(folder / f"words_{number:06}.npy", allow_pickle=False)
    with (folder / f"words_{number:06}.txt").open("rb") as words:
        for word, count in zip(words, counts, strict=True):
            yield word[:-1], int(count)


class _Numbered:
    """Counts what is iterated."""

    def __init__(self, values: Iterable[tuple[int, bytes]]) -> None:
        self.count, self._values = 0, values

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for value in self._values:
            self.count += 1
            yield value
