"""A tokenizer by the rules of `keras.datasets.imdb`: from bytes to ids by frequency rank."""

import collections
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

PAD, START, OUT_OF_VOCABULARY = 0, 1, 2
FIRST_RANK_OFFSET = 3  # the word of rank r, counted from 1, has id r + 3: Keras leaves id 3 unused
LARGEST_VOCABULARY = 2**16  # ids are stored as uint16
Token = TypeVar("Token")
_PIECE = 2**16  # bytes that are tokenized at once
KEPT = ("last", "first", "ends")  # which tokens are kept of a text that is too long

# The filter of Keras with tab and newline. The apostrophe is not a separator. Other control bytes, NUL and non-ASCII bytes are
# parts of words: the rule is about bytes, so the training split has 88,584 words, while decoded text has 88,582.
FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
_ALWAYS = b" \n"  # a vocabulary is stored with a word in each line


class Encoded(NamedTuple):
    """The ids of a text.

    Attributes:
      ids: The id of the start, then those of the words, not truncated. Words that the training split does not have are dropped.
      out_of_vocabulary: The number of words that have the id 2 or were dropped.
    """

    ids: list[int]
    out_of_vocabulary: int


@dataclasses.dataclass(frozen=True)
class WordRules:
    """What a word is: a text between separators.

    Attributes:
      lowercase: Whether words are in lower case. This changes ASCII letters only, as the rules are about bytes.
      filters: The separators beside space and newline, ASCII characters. None is FILTERS.
      marks: Characters that are words of their own, wherever they stand; ASCII, even where `filters` has them.
    """

    lowercase: bool = True
    filters: str | None = None
    marks: str = ""

    @functools.cached_property
    def _separators(self) -> bytes:
        separators = (FILTERS if self.filters is None else self.filters).encode("ascii") + _ALWAYS
        return bytes(byte for byte in separators if byte not in self.marks.encode("ascii"))

    @functools.cached_property
    def _marks(self) -> re.Pattern[bytes]:
        return re.compile(b"([" + re.escape(self.marks.encode("ascii")) + b"])")

    @functools.cached_property
    def separator(self) -> re.Pattern[bytes]:
        """Matches one separator."""
        return re.compile(b"[" + re.escape(self._separators) + b"]")

    @functools.cached_property
    def _table(self) -> bytes:
        table = bytes(ord(" ") if byte in self._separators else byte for byte in range(256))
        return table.lower() if self.lowercase else table

    def split(self, text: bytes) -> list[bytes]:
        """Returns the words of a text."""
        # Not .split(), which would also split at carriage returns, form feeds and vertical tabs.
        text = text.translate(self._table)
        return list(filter(None, (self._marks.sub(rb" \1 ", text) if self.marks else text).split(b" ")))


KERAS = WordRules()


def split(text: bytes) -> list[bytes]:
    """Returns the words of a text: in lower case (ASCII only), with separators replaced by spaces, split at the spaces."""
    return KERAS.split(text)


def count_words(texts: Iterable[bytes], rules: WordRules = KERAS) -> collections.Counter[bytes]:
    """Counts the words of the texts."""
    counts: collections.Counter[bytes] = collections.Counter()
    for text in texts:
        counts.update(rules.split(text))
    return counts


def rank_words(counts: collections.Counter[bytes]) -> tuple[bytes, ...]:
    """Returns the words, the most frequent first. Ties are ordered by bytes, because the order of Keras is not known."""
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def check_settings(vocabulary_size: int, max_length: int) -> None:
    """Raises ValueError, with the value and the rule, if a setting is out of its range."""
    if not FIRST_RANK_OFFSET < vocabulary_size <= LARGEST_VOCABULARY:
        low, high = FIRST_RANK_OFFSET + 1, LARGEST_VOCABULARY
        raise ValueError(f"vocabulary_size={vocabulary_size} is outside {low} to {high}: four reserved ids, stored as uint16")
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1")


def kept(ids: list[Token], max_length: int, keep: str) -> list[Token]:
    """Returns the ids that are kept of a text; see `Tokenizer`."""
    if len(ids) <= max_length:
        return ids
    last = {"last": max_length, "first": 0, "ends": max_length // 2}[keep]
    return ids[: max_length - last] + ids[len(ids) - last :]


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Encodes any bytes. As in Keras, a word that the training split does not have is dropped and does not become 2.

    Attributes:
      words: The words by rank, the most frequent first.
      vocabulary_size: Ids from this number on become 2.
      max_length: The number of ids in a padded row.
      rules: What a word is.
      keep: Which ids are kept of a longer text: the "last", the "first", or at both "ends", of which the first half is the
        longer one where max_length is odd.
    """

    words: tuple[bytes, ...] = dataclasses.field(repr=False)
    vocabulary_size: int
    max_length: int
    rules: WordRules = KERAS
    keep: str = "last"

    def __post_init__(self) -> None:
        check_settings(self.vocabulary_size, self.max_length)
        if self.keep not in KEPT:
            raise ValueError(f"keep={self.keep!r} must be one of {', '.join(KEPT)}")

    @functools.cached_property
    def _ids(self) -> dict[bytes, int]:
        ids = {word: rank + FIRST_RANK_OFFSET for rank, word in enumerate(self.words, start=1)}
        return {word: i if i < self.vocabulary_size else OUT_OF_VOCABULARY for word, i in ids.items()}

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the words."""
        return hashlib.sha256(b"\n".join(self.words)).hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """What a checkpoint keeps beside the words."""
        return {"vocabulary_size": self.vocabulary_size, "max_length": self.max_length}

    def lookup(self, word: bytes) -> int | None:
        """Returns the id of a word as `split` gives it, or None if the training split does not have it."""
        return self._ids.get(word)

    def encode(self, text: bytes) -> Encoded:
        """Returns the ids of a text, and how many of its words are out of the vocabulary."""
        words, known = self.rules.split(text), self._ids
        ids = [known[word] for word in words if word in known]
        return Encoded([START, *ids], len(words) - len(ids) + ids.count(OUT_OF_VOCABULARY))

    def read(self, text: bytes) -> Encoded:
        """Returns what `encode` returns, with the ids that are kept. In pieces: the words of 10 MB would take 250 MB."""
        ids, unknown = [START], 0
        for piece in _pieces(text, self.rules.separator):
            encoded = self.encode(piece)
            ids = self.kept(ids + encoded.ids[1:])
            unknown += encoded.out_of_vocabulary
        return Encoded(ids, unknown)

    def kept(self, ids: list[Token]) -> list[Token]:
        """Returns the ids that are kept of a text, at most max_length. kept(kept(a) + b) is kept(a + b)."""
        return kept(ids, self.max_length, self.keep)

    def pad(self, rows: Sequence[list[int]]) -> np.ndarray:
        """Returns uint16 `[E, T]` with T = max_length: the ids that are kept of each row, followed by zeros."""
        tokens = np.full((len(rows), self.max_length), PAD, np.uint16)
        for padded, ids in zip(tokens, rows, strict=True):
            kept = self.kept(ids)
            padded[: len(kept)] = kept
        return tokens


def _pieces(line: bytes, separator: re.Pattern[bytes]) -> Iterator[bytes]:
    """Divides a line into pieces of about _PIECE bytes, between words."""
    first = 0
    while first < len(line):
        found = separator.search(line, first + _PIECE)
        last = found.end() if found else len(line)
        yield line[first:last]
        first = last
