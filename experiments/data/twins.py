"""Corpora whose examples come in twins: two texts with the same words in another order, and opposite labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Example = TypeVar("Example", bound=tuple[Any, ...])  # a text, its label, and whatever else is known of it


def picker(rng: np.random.Generator) -> Callable[[Sequence[str]], str]:
    """Returns a function that picks one of several words or phrases, each as often as the others."""
    return lambda options: options[int(rng.integers(len(options)))]


def splits(
    draw: Callable[[np.random.Generator], tuple[Example, Example]],
    sizes: Mapping[str, int],
    most_words: int,
    rng: np.random.Generator,
) -> dict[str, list[Example]]:
    """Draws twins until the splits are full, and puts them into an order of their own.

    Args:
      draw: Returns two examples that are twins.
      sizes: The number of examples of each split, which must be even.
      most_words: Longer twins are dropped.
      rng: What all choices are made by.

    Returns:
      The splits by name. No text occurs twice, and every example is in the same split as its twin.
    """
    known: set[str] = set()
    pairs: list[tuple[Example, Example]] = []
    while 2 * len(pairs) < sum(sizes.values()):
        pair = draw(rng)
        texts = {text for text, *_ in pair}
        if known.isdisjoint(texts) and len(pair[0][0].split()) <= most_words:
            known |= texts
            pairs.append(pair)
    found, start = {}, 0
    for name, size in sizes.items():
        ordered = [example for pair in pairs[start : start + size // 2] for example in pair]
        found[name] = [ordered[index] for index in rng.permutation(size)]
        start += size // 2
    return found
