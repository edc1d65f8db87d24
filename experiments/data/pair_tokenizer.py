"""From pairs of texts to ids and back: source and target share one vocabulary of words, or of characters."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data.tokenizer import FIRST_RANK_OFFSET, KEPT, OUT_OF_VOCABULARY, PAD, START, check_settings, kept

END = FIRST_RANK_OFFSET  # of a target: the id that Keras leaves unused
UNITS = ("word", "character")
NAMES = {PAD: "", START: "[start]", OUT_OF_VOCABULARY: "[unknown]", END: "[end]"}


class Source(NamedTuple):
    """A source as the model reads it."""

    ids: list[int]
    shown: list[str]  # its tokens, as they stand in the text
    left_out: int  # tokens that are not read, because the source is too long
    unknown: int  # of those that are read, how many are not in the vocabulary


@dataclasses.dataclass(frozen=True)
class PairTokenizer:
    """Encodes sources and targets. A token that is not in the vocabulary has the id 2.

    Attributes:
      words: The tokens in UTF-8, the most frequent first.
      vocabulary_size: Ids from this number on become 2.
      max_length: The number of ids in a padded source.
      target_length: The number of ids in a padded target, with its end.
      unit: What a token is: a "word" between spaces, or a "character".
      lowercase: Whether tokens are in lower case.
      keep: Which tokens are kept of a longer source; see `tokenizer.Tokenizer`.
    """

    words: tuple[bytes, ...] = dataclasses.field(repr=False)
    vocabulary_size: int
    max_length: int
    target_length: int
    unit: str = "word"
    lowercase: bool = False
    keep: str = "last"

    def __post_init__(self) -> None:
        check_settings(self.vocabulary_size, self.max_length)
        if self.unit not in UNITS or self.keep not in KEPT:
            raise ValueError(f"unit={self.unit!r}, keep={self.keep!r} must be of {', '.join(UNITS)} and of {', '.join(KEPT)}")

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        ids = {word.decode(): rank + FIRST_RANK_OFFSET for rank, word in enumerate(self.words, start=1)}
        return {word: i for word, i in ids.items() if i < self.vocabulary_size}

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the words."""
        return hashlib.sha256(b"\n".join(self.words)).hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """What a checkpoint keeps beside the words."""
        return {
            "vocabulary_size": self.vocabulary_size,
            "max_length": self.max_length,
            "target_length": self.target_length,
        }

    def source(self, text: str) -> Source:
        """Reads a source."""
        tokens = split(text, self.unit)
        shown = kept(tokens, self.max_length, self.keep)
        ids = [self._id(token) for token in shown]
        return Source(ids, shown, len(tokens) - len(ids), ids.count(OUT_OF_VOCABULARY))

    def target(self, text: str) -> list[int]:
        """Returns the ids of a target, with its end."""
        return [*(self._id(token) for token in split(text, self.unit)), END]

    def _id(self, token: str) -> int:
        return self._ids.get(lowered(token) if self.lowercase else token, OUT_OF_VOCABULARY)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Returns the tokens of a target up to its end."""
        found = []
        for i in map(int, ids):
            if i == END:
                break
            found.append(NAMES[i] if i in NAMES else self.words[i - FIRST_RANK_OFFSET - 1].decode())
        return found

    def text(self, ids: Iterable[int]) -> str:
        """Returns the text of a target."""
        return (" " if self.unit == "word" else "").join(self.tokens(ids))

    def pad(self, rows: Sequence[list[int]]) -> np.ndarray:
        """Returns uint16 `[E, S]` with S = max_length: sources, followed by zeros."""
        return _padded(rows, self.max_length)

    def pad_targets(self, rows: Sequence[list[int]]) -> np.ndarray:
        """Returns uint16 `[E, U]` with U = target_length: targets, followed by zeros."""
        return _padded(rows, self.target_length)


def split(text: str, unit: str) -> list[str]:
    """Returns the tokens of a text: its words, or its characters without spaces at the ends."""
    return text.split() if unit == "word" else list(text.strip())


def lowered(token: str) -> str:
    """Returns a token in lower case, unless that would have another number of characters."""
    return token.lower() if len(token.lower()) == len(token) else token


def _padded(rows: Sequence[list[int]], length: int) -> np.ndarray:
    tokens = np.full((len(rows), length), PAD, np.uint16)
    for padded, ids in zip(tokens, rows, strict=True):
        padded[: len(ids)] = ids
    return tokens
