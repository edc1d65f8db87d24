"""Sequences of letters, and the same in the opposite order, in all lengths alike: "dabc" and "cbad"."""

import numpy as np

SIZES = {"train": 16_000, "validation": 1_000, "test": 2_000}
LETTERS = "abcdefghij"
MAX_LENGTH = 16  # where the config has none
Pair = tuple[str, str]


def pairs(max_length: int | None = None, seed: int = 0) -> dict[str, list[Pair]]:
    """Returns pairs of all lengths up to `max_length`; of a short length all splits have the same few sequences."""
    rng, longest = np.random.default_rng(seed), MAX_LENGTH if max_length is None else max_length
    return {name: [_pair(1 + index % longest, rng) for index in rng.permutation(size).tolist()] for name, size in SIZES.items()}


def _pair(length: int, rng: np.random.Generator) -> Pair:
    text = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=length))
    return text, text[::-1]
