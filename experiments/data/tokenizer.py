"""Words and ids by the rule of `keras.datasets.imdb`: bytes in, ids by frequency rank out. NumPy only, no files."""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

PAD, START, OUT_OF_VOCABULARY = 0, 1, 2
FIRST_RANK_OFFSET = 3  # the word of rank r, counted from 1, has id r + 3: Keras leaves id 3 unused
LARGEST_VOCABULARY = 2**16  # ids are stored as uint16

# Keras' filter with tab and newline; the apostrophe is no separator. Other control bytes, NUL and the non-ASCII bytes
# stay parts of words: the rule is about bytes, which is why it counts 88,584 words in train where text gives 88,582.
_SEPARATORS = b'!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
_TABLE = bytes(ord(" ") if byte in _SEPARATORS else byte for byte in range(256)).lower()  # bytes.lower() is ASCII alone


class Encoded(NamedTuple):
    """ids: the start mark, then every word that train knows, untruncated. out_of_vocabulary: words marked 2 or dropped."""

    ids: list[int]
    out_of_vocabulary: int


def split(text: bytes) -> list[bytes]:
    """The words of a text: ASCII lowered, separators become spaces, split on single spaces, empty ones dropped."""
    # Not .split(): that would also split at carriage returns, form feeds and vertical tabs.
    return list(filter(None, text.translate(_TABLE).split(b" ")))


def count_words(texts: Iterable[bytes]) -> collections.Counter[bytes]:
    """How often each word occurs in the texts."""
    counts: collections.Counter[bytes] = collections.Counter()
    for text in texts:
        counts.update(split(text))
    return counts


def rank_words(counts: collections.Counter[bytes]) -> tuple[bytes, ...]:
    """The words, most frequent first; ties in the order of their bytes, because Keras' own tie order is lost."""
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def check_settings(vocabulary_size: int, max_length: int) -> None:
    """Raises ValueError, one line with the value and the rule, unless both settings can be honoured."""
    if not FIRST_RANK_OFFSET < vocabulary_size <= LARGEST_VOCABULARY:
        low, high = FIRST_RANK_OFFSET + 1, LARGEST_VOCABULARY
        raise ValueError(f"vocabulary_size={vocabulary_size} is outside {low} to {high}: four reserved ids, stored as uint16")
    if max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """words by rank, the most frequent first; ids from vocabulary_size on become 2; rows are max_length ids long.

    Any bytes can be encoded. A word that train does not know at all is dropped, as in Keras, not marked 2.
    """

    words: tuple[bytes, ...] = dataclasses.field(repr=False)
    vocabulary_size: int
    max_length: int

    def __post_init__(self) -> None:
        check_settings(self.vocabulary_size, self.max_length)

    @functools.cached_property
    def _ids(self) -> dict[bytes, int]:
        ids = {word: rank + FIRST_RANK_OFFSET for rank, word in enumerate(self.words, start=1)}
        return {word: i if i < self.vocabulary_size else OUT_OF_VOCABULARY for word, i in ids.items()}

    def encode(self, text: bytes) -> Encoded:
        """The ids of a text, start mark first, and the number of its words that the ids do not tell apart."""
        words, known = split(text), self._ids
        ids = [known[word] for word in words if word in known]
        return Encoded([START, *ids], len(words) - len(ids) + ids.count(OUT_OF_VOCABULARY))

    def pad(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """uint16 `[E, T]`: the last max_length ids of each row, then zeros. A row longer than T loses its beginning."""
        tokens = np.full((len(rows), self.max_length), PAD, np.uint16)
        for padded, ids in zip(tokens, rows, strict=True):
            kept = ids[-self.max_length :]
            padded[: len(kept)] = kept
        return tokens
