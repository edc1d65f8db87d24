"""Encodes texts as the n-grams that a model knows."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from experiments.data import ngrams
from experiments.data.tokenizer import KEPT, PAD, Encoded, Token, WordRules, kept

CHOICES = ("frequency", "chi2", "hashed")


@dataclasses.dataclass(frozen=True)
class NgramSettings:
    """Which n-grams are features.

    Attributes:
      longest: The number of words of the longest n-grams.
      choice: "frequency" and "chi2" choose them in the training texts, see `ngrams.chosen`. "hashed" reads all n-grams, without
        a list: n-grams with the same hash modulo `features` are one feature.
      features: Their number; fewer if there are not so many.
    """

    longest: int
    choice: str
    features: int


@dataclasses.dataclass(frozen=True)
class NgramTokenizer:
    """Encodes any bytes as the ids of n-grams, each at its last occurrence. 0 is padding.

    Attributes:
      words: The chosen n-grams: the hexadecimal digits of their hashes, in ascending order. Empty with hashed ones.
      settings: Which n-grams are features.
      max_length: The number of ids in a padded row.
      rules: What a word is.
      keep: Which ids are kept of a longer text; see `Tokenizer`.
    """

    words: tuple[bytes, ...] = dataclasses.field(repr=False)
    settings: NgramSettings
    max_length: int
    rules: WordRules
    keep: str = "last"

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError(f"max_length={self.max_length} must be at least 1")
        if self.keep not in KEPT:
            raise ValueError(f"keep={self.keep!r} must be one of {', '.join(KEPT)}")

    @property
    def vocabulary_size(self) -> int:
        """The number of ids, with that of padding."""
        return 1 + (self.settings.features if self.settings.choice == "hashed" else len(self.words))

    @property
    def sizes(self) -> dict[str, int]:
        """What a checkpoint keeps beside the words."""
        return {"vocabulary_size": self.vocabulary_size, "max_length": self.max_length}

    @functools.cached_property
    def _hashes(self) -> np.ndarray:
        return np.array([int(word, 16) for word in self.words], np.uint64)

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the chosen n-grams."""
        return hashlib.sha256(b"\n".join(self.words)).hexdigest()

    def ids(self, hashes: np.ndarray) -> np.ndarray:
        """Returns the id of each n-gram by its hash, int64 `[P]`; 0 for those that were not chosen."""
        if self.settings.choice == "hashed":
            return (hashes % np.uint64(self.settings.features)).astype(np.int64) + 1
        if not len(self._hashes):
            return np.zeros(len(hashes), np.int64)
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[place] == hashes, place + 1, PAD)

    def encode(self, text: bytes) -> Encoded:
        """Returns the ids of a text, not truncated, and how many of its words are in none of these n-grams."""
        words = self.rules.split(text)
        found = ngrams.occurrences(words, self.settings.longest)
        ids = self.ids(found.hashes)
        known = ids != PAD
        return Encoded(ids[known].tolist(), len(words) - covered(found, known, len(words)))

    def read(self, text: bytes) -> Encoded:
        """Returns what `encode` returns, with the ids that are kept."""
        ids, unknown = self.encode(text)
        return Encoded(self.kept(ids), unknown)

    def kept(self, ids: list[Token]) -> list[Token]:
        """Returns the ids that are kept of a text, at most max_length."""
        return kept(ids, self.max_length, self.keep)

    def pad(self, rows: Sequence[list[int]]) -> np.ndarray:
        """Returns uint32 `[E, T]` with T = max_length: the ids that are kept of each row, followed by zeros."""
        tokens = np.full((len(rows), self.max_length), PAD, np.uint32)
        for padded, ids in zip(tokens, rows, strict=True):
            some = self.kept(ids)
            padded[: len(some)] = some
        return tokens


def covered(found: ngrams.Occurrences, known: np.ndarray, words: int) -> int:
    """Returns how many words of a text are in an n-gram that is known, by the last occurrence of each."""
    change = np.zeros(words + 1, np.int64)
    np.add.at(change, found.last[known] - found.sizes[known] + 1, 1)
    np.add.at(change, found.last[known] + 1, -1)
    return int(np.count_nonzero(np.cumsum(change[:words])))
