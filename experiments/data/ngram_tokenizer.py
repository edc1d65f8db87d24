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
        a list: n-grams that are hashed to the same place are one feature. With `longest` above 1, a quarter of the features,
        rounded up, is for single words, which are fewer and tell more.
      features: Their number; fewer if there are not so many.
      context: How many words are context as well; see `NgramTokenizer`.

    Raises:
      ValueError: The choice is unknown, or there are too few features to be hashed.
    """

    longest: int
    choice: str
    features: int
    context: int = 0

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"choice={self.choice!r} must be one of {', '.join(CHOICES)}")
        if self.choice == "hashed" and self.features < min(self.longest, 2):
            raise ValueError(f"features={self.features} must be at least {min(self.longest, 2)} with choice=hashed")


@dataclasses.dataclass(frozen=True)
class NgramTokenizer:
    """Encodes any bytes as the ids of n-grams, each at its last occurrence, and of words that are context. 0 is padding.

    Context is what attention reads around an n-gram: the most frequent words of the training texts, at all of their
    occurrences. A word that is both has two ids, and the one for context comes before the n-grams that end with it. The ids
    of n-grams are from 1 on, and those of context follow them.

    Attributes:
      words: The chosen n-grams, then the words that are context: the hexadecimal digits of their hashes, each kind in ascending
        order. Empty with hashed ones, for which words with the same hash modulo `settings.context` are one word of context.
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
        hashed = self.settings.features + self.settings.context
        return 1 + (hashed if self.settings.choice == "hashed" else len(self.words))

    @property
    def sizes(self) -> dict[str, int]:
        """What a checkpoint keeps beside the words."""
        return {"vocabulary_size": self.vocabulary_size, "max_length": self.max_length}

    @property
    def _ngrams(self) -> int:
        return self.vocabulary_size - 1 - self.settings.context

    @functools.cached_property
    def _hashes(self) -> np.ndarray:
        return np.array([int(word, 16) for word in self.words], np.uint64)

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the chosen n-grams."""
        return hashlib.sha256(b"\n".join(self.words)).hexdigest()

    def ids(self, found: ngrams.Occurrences) -> np.ndarray:
        """Returns the id of each n-gram, int64 `[P]`; 0 for those that were not chosen."""
        number = self._ngrams
        if self.settings.choice != "hashed" or self.settings.longest == 1:
            return self._places(found.hashes, 0, number)
        words = -(-number // 4)
        longer = self._places(found.hashes, words, number - words)
        return np.where(found.sizes == 1, self._places(found.hashes, 0, words), longer)

    def _places(self, hashes: np.ndarray, first: int, number: int) -> np.ndarray:
        """Returns the ids of hashes that are among `number` words behind the `first` ones; 0 for those that are not."""
        if self.settings.choice == "hashed":
            return (hashes % np.uint64(number)).astype(np.int64) + 1 + first
        known = self._hashes[first : first + number]
        if not len(known):
            return np.zeros(len(hashes), np.int64)
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        return np.where(known[place] == hashes, place + 1 + first, PAD)

    def encode(self, text: bytes) -> Encoded:
        """Returns the ids of a text, not truncated, and how many of its words are in none of these n-grams."""
        words = self.rules.split(text)
        hashes = ngrams.word_hashes(words)
        found = ngrams.occurrences(hashes, self.settings.longest)
        ids = self.ids(found)
        known = ids != PAD
        unknown = len(words) - covered(found, known, len(words))
        if not self.settings.context:
            return Encoded(ids[known].tolist(), unknown)
        context = self._places(hashes, self._ngrams, self.settings.context)
        around = np.flatnonzero(context)
        every = np.concatenate([context[around], ids[known]])
        order = np.argsort(np.concatenate([around, found.last[known]]), kind="stable")  # context is first at each word
        return Encoded(every[order].tolist(), unknown)

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
