"""The corpora that a grammar generates, as arrays of tokens."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.data import agreement, verdicts
from experiments.data.corpus import SENTIMENTS, Corpus, Split
from experiments.data.tokenizer import FIRST_RANK_OFFSET, KERAS, Tokenizer, WordRules, count_words, rank_words


class Grammar(NamedTuple):
    """A grammar.

    Attributes:
      examples: Maps a seed to the examples of each split, which begin with a text and its label.
      most_words: The number of words of the longest text.
      classes: The names of the labels.
    """

    examples: Callable[[int], Mapping[str, Sequence[tuple[Any, ...]]]]
    most_words: int
    classes: tuple[str, str]


GRAMMARS = {
    "verdicts": Grammar(lambda seed: verdicts.reviews(seed), verdicts.MAX_WORDS, SENTIMENTS),
    "agreement": Grammar(lambda seed: agreement.sentences(seed), agreement.MAX_WORDS, agreement.CLASSES),
}


def load(
    name: str,
    vocabulary_size: int | None,
    max_length: int | None,
    seed: int = 0,
    rules: WordRules = KERAS,
    keep: str = "last",
) -> Corpus:
    """Loads a corpus.

    Args:
      name: A key of GRAMMARS.
      vocabulary_size: Ids from this number on become 2. None gives every word of the training split an id.
      max_length: The number of tokens of a text. None fits the longest one.
      seed: The seed of the texts.
      rules: What a word is.
      keep: Which tokens are kept of a longer text; see `Tokenizer`.
    """
    grammar = GRAMMARS[name]
    splits = grammar.examples(seed)
    words = rank_words(count_words((text.encode() for text, *_ in splits["train"]), rules))
    vocabulary_size = FIRST_RANK_OFFSET + 1 + len(words) if vocabulary_size is None else vocabulary_size
    length = grammar.most_words + 1 if max_length is None else max_length
    tokenizer = Tokenizer(words, vocabulary_size, length, rules, keep)

    def split(name: str) -> Split:
        tokens = tokenizer.pad([tokenizer.encode(text.encode()).ids for text, *_ in splits[name]])
        return Split(tokens, np.array([label for _, label, *_ in splits[name]], np.int8))

    return Corpus(tokenizer, split("train"), split("validation"), functools.partial(split, "test"), grammar.classes)
