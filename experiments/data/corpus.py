"""What every corpus gives: padded token arrays in three splits, and the tokenizer that made them."""

import dataclasses
from collections.abc import Callable

import numpy as np

from experiments.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Split:
    """tokens: uint16 `[E, T]`, padded with 0 at the end; labels: int8 `[E]`, 0 negative, 1 positive."""

    tokens: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Corpus:
    """`test` is a function, so that nothing reads the test reviews before the final evaluation calls it."""

    tokenizer: Tokenizer
    train: Split
    validation: Split
    test: Callable[[], Split]
