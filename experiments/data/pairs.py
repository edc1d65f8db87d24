"""Corpora of pairs of texts, a source and its target, as arrays of tokens: what a sequence-to-sequence model is trained on."""

import collections
from collections.abc import Sequence
from typing import Any

from experiments.data import pair_dates, pair_files, pair_reversal, pair_sentences
from experiments.data.corpus import Corpus, Split
from experiments.data.pair_files import Row
from experiments.data.pair_tokenizer import PairTokenizer, lowered, split
from experiments.data.tokenizer import FIRST_RANK_OFFSET
from experiments.errors import UsageError

LONGEST = 256  # tokens of a target, and of a source where the config does not say it


def load(data: Any) -> Corpus:
    """Loads the pairs of `config.data`. The words are ranked by their frequency in the training split, both sides together.

    Raises:
      UsageError: A field does not fit the data, or a row of a file breaks a rule.
      DataError: A file cannot be read.
    """
    splits = rows(data)
    longest = max((row for part in splits.values() for row in part), key=lambda row: len(split(row.target, data.unit)))
    if (size := len(split(longest.target, data.unit))) > LONGEST:
        raise UsageError(f"{longest.where}: the target has {size} tokens, and the longest that can be learned has {LONGEST}")
    tokenizer = _tokenizer(data, splits["train"], size + 1)
    return Corpus(
        tokenizer=tokenizer,
        train=_encoded(tokenizer, splits["train"]),
        validation=_encoded(tokenizer, splits["validation"]),
        test=lambda: _encoded(tokenizer, splits["test"]),
        classes=(),
    )


def rows(data: Any) -> dict[str, list[Row]]:
    """Returns the pairs of train, validation and test. Raises as `load`."""
    if data.name == "pairs":
        return pair_files.read(data)
    if data.name == "dates":
        named: Any = {name: [(e.source, e.target) for e in part] for name, part in pair_dates.examples().items()}
    elif data.name == "reversal":
        named = pair_reversal.pairs(data.max_length)
    else:
        named = pair_sentences.pairs()
    return {
        name: [Row(pair[0], pair[1], f"{data.name}, {name}, row {number}") for number, pair in enumerate(part, start=1)]
        for name, part in named.items()
    }


def _tokenizer(data: Any, train: Sequence[Row], target_length: int) -> PairTokenizer:
    counts: collections.Counter[str] = collections.Counter()
    longest = 1
    for row in train:
        source = split(row.source, data.unit)
        longest = max(longest, len(source))
        for token in (*source, *split(row.target, data.unit)):
            counts[lowered(token) if data.lowercase else token] += 1
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    size = FIRST_RANK_OFFSET + 1 + len(ranked) if data.vocabulary_size is None else data.vocabulary_size
    length = min(LONGEST, longest) if data.max_length is None else data.max_length
    words = tuple(token.encode() for token in ranked)
    try:
        return PairTokenizer(words, size, length, target_length, data.unit, data.lowercase, data.keep)
    except ValueError as error:
        raise UsageError(f"config.data: {error}") from None


def _encoded(tokenizer: PairTokenizer, part: Sequence[Row]) -> Split:
    sources = tokenizer.pad([tokenizer.source(row.source).ids for row in part])
    return Split(sources, tokenizer.pad_targets([tokenizer.target(row.target) for row in part]))
