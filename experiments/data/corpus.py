"""The common type of the corpora: padded arrays of tokens in three splits, and the tokenizer that made them."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.data.ngram_tokenizer import NgramTokenizer
from experiments.data.pair_tokenizer import PairTokenizer
from experiments.data.tokenizer import Tokenizer

SENTIMENTS = ("neg", "pos")  # the classes of imdb and verdicts


class Split(NamedTuple):
    """The examples of a split.

    Attributes:
      tokens: uint16 `[E, T]`, or uint32 for n-grams, padded with 0 at the end.
      labels: int8 `[E]`, or int32 for more than 127 classes: the indices of the labels in the corpus' `classes`. Of a corpus of
        pairs, uint16 `[E, U]`: the tokens of the targets with their ends, padded with 0.
    """

    tokens: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus. `test` is a function, so that the test texts are not read before the final evaluation."""

    tokenizer: Tokenizer | NgramTokenizer | PairTokenizer
    train: Split
    validation: Split
    test: Callable[[], Split]
    classes: tuple[str, ...] = SENTIMENTS

    @property
    def target_length(self) -> int | None:
        """The number of tokens of a padded target; None: the labels are classes."""
        return self.train.labels.shape[1] if self.train.labels.ndim > 1 else None

    @functools.cached_property
    def sha256(self) -> str:
        """The SHA-256 of the vocabulary and of the training and validation examples: a run goes on only on the same ones."""
        digest = hashlib.sha256(self.tokenizer.sha256.encode())
        for array in (self.train.tokens, self.train.labels, self.validation.tokens, self.validation.labels):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        if self.classes != SENTIMENTS:  # which the first runs had
            digest.update("\n".join(self.classes).encode())
        return digest.hexdigest()
