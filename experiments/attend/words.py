"""The words of a text that a classifier reads, and those that it does not."""

from typing import NamedTuple

from experiments.data import tokenizer
from experiments.data.tokenizer import Tokenizer


class Words(NamedTuple):
    """A text as the model reads it: the last `max_length` tokens, as in training."""

    ids: list[int]
    shown: list[str]
    left_out: int  # tokens before the first one that is read
    unknown: int  # words that no training review has, which are dropped
    rare: int  # words that are read as the id of rare words


def read(text: bytes, by: Tokenizer) -> Words:
    """Returns the words of a text."""
    ids, shown, unknown = [tokenizer.START], ["[start]"], 0
    for word in tokenizer.split(text):
        found = by.lookup(word)
        if found is None:
            unknown += 1
            continue
        ids.append(found)
        shown.append(word.decode(errors="backslashreplace") + (" [rare]" if found == tokenizer.OUT_OF_VOCABULARY else ""))
    kept = ids[-by.max_length :]
    return Words(kept, shown[-len(kept) :], len(ids) - len(kept), unknown, kept.count(tokenizer.OUT_OF_VOCABULARY))
