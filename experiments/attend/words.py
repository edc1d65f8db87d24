"""The words of a text that a classifier reads, and those that it does not."""

from typing import NamedTuple

from experiments.data import tokenizer
from experiments.data.tokenizer import Tokenizer


class Words(NamedTuple):
    """A text as the model reads it: `max_length` tokens of it, as in training."""

    ids: list[int]
    shown: list[str]
    left_out: int  # tokens that are not read
    unknown: list[str]  # words that no training text has, which are dropped
    rare: int  # words that are read as the id of rare words


def read(text: bytes, by: Tokenizer) -> Words:
    """Returns the words of a text."""
    read, unknown = [(tokenizer.START, "[start]")], []
    for word in by.rules.split(text):
        found = by.lookup(word)
        if found is None:
            unknown.append(word.decode(errors="backslashreplace"))
            continue
        rare = " [rare]" if found == tokenizer.OUT_OF_VOCABULARY else ""
        read.append((found, word.decode(errors="backslashreplace") + rare))
    ids, shown = map(list, zip(*by.kept(read), strict=True))
    return Words(ids, shown, len(read) - len(ids), unknown, ids.count(tokenizer.OUT_OF_VOCABULARY))
