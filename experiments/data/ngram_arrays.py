"""Corpora of n-grams: IMDB, whose arrays are kept, and the generated corpora."""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from experiments.data import array_folder, generated, imdb, imdb_archive, imdb_arrays, imdb_location, ngrams
from experiments.data.corpus import Corpus, Split
from experiments.data.ngram_tokenizer import NgramSettings, NgramTokenizer
from experiments.data.tokenizer import WordRules
from experiments.errors import UsageError

FORMAT = 2  # raise it when the same archive and settings give different arrays
MAX_LENGTH = 1024  # where the config has none
_ARRAYS, _WORDS = "imdb_ngram_arrays", "ngrams.txt"


def load(
    name: str,
    settings: NgramSettings,
    max_length: int | None,
    validation_size: int,
    data_dir: Path | None,
    rules: WordRules,
    keep: str,
) -> Corpus:
    """Loads a corpus. The n-grams are chosen in its training texts, not in those for validation or test.

    The first call with given settings takes one to two minutes for IMDB. Later calls map the arrays.

    Args:
      name: "imdb", or that of a generated corpus.
      settings: Which n-grams are features.
      max_length: The number of ids that are kept of a text, of n-grams and of context. None is MAX_LENGTH.
      validation_size: The number of IMDB's reviews for validation; the other ones of the 25,000 are for training. They are the
        first ones in the order of Keras, as in `imdb_arrays`.
      data_dir: The data directory; see `imdb.prepare`.
      rules: What a word is.
      keep: Which ids are kept of a longer text; see `Tokenizer`.

    Raises:
      UsageError: The texts have fewer different words than shall be context.
      DataError: The data is missing or damaged.
    """
    empty = NgramTokenizer((), settings, MAX_LENGTH if max_length is None else max_length, rules, keep)
    if name in generated.GRAMMARS:
        return _generated(name, empty)
    prepared = imdb.prepare(None, data_dir)
    identity = {"format": FORMAT, "archive_sha256": imdb.prepared_sha256(prepared)}
    identity |= dataclasses.asdict(settings) | dataclasses.asdict(rules)
    identity |= {"max_length": empty.max_length, "keep": keep, "validation_size": validation_size}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = imdb_location.data_directory(data_dir) / _ARRAYS / digest[:16]
    if not folder.exists():  # it has its name only when it is complete
        array_folder.create(
            folder,
            identity,
            lambda staging: _fill(staging, prepared, empty, validation_size),
            "the n-grams of IMDB cannot be written to",
        )
    return _open(folder, empty, validation_size)


def _generated(name: str, empty: NgramTokenizer) -> Corpus:
    grammar = generated.GRAMMARS[name]
    splits = {split: [example[:2] for example in examples] for split, examples in grammar.examples(0).items()}
    tokenizer = fitted(empty, [text.encode() for text, _ in splits["train"]], _labels(splits["train"]))

    def split(name: str) -> Split:
        return Split(_tokens(tokenizer, [text.encode() for text, _ in splits[name]]), _labels(splits[name]))

    return Corpus(tokenizer, split("train"), split("validation"), lambda: split("test"), grammar.classes)


def fitted(empty: NgramTokenizer, texts: Iterable[bytes], labels: np.ndarray) -> NgramTokenizer:
    """Returns a tokenizer with the n-grams that are chosen in labelled texts; with hashed ones, the same tokenizer.

    Raises:
      UsageError: The texts have fewer different words than shall be context.
    """
    settings = empty.settings
    if settings.choice == "hashed":
        return empty
    found = [ngrams.occurrences(ngrams.word_hashes(empty.rules.split(text)), settings.longest) for text in texts]
    chosen = ngrams.chosen([text.hashes for text in found], labels, settings.features, settings.choice).tolist()
    if settings.context:
        words = [text.hashes[text.sizes == 1] for text in found]
        context = ngrams.chosen(words, labels, settings.context, "frequency").tolist()
        if len(context) < settings.context:
            raise UsageError(
                f"config.data.ngram_context={settings.context} must be at most {len(context)}, the words there are"
            )
        chosen += context
    return NgramTokenizer(tuple(b"%016x" % value for value in chosen), settings, empty.max_length, empty.rules, empty.keep)


def _tokens(tokenizer: NgramTokenizer, texts: Iterable[bytes]) -> np.ndarray:
    return tokenizer.pad([tokenizer.encode(text).ids for text in texts])


def _labels(examples: list[Any]) -> np.ndarray:
    return np.array([label for _, label in examples], np.int8)


def _fill(folder: Path, prepared: Path, empty: NgramTokenizer, validation_size: int) -> None:
    reviews = {split: imdb_arrays.read(prepared, split) for split in imdb_archive.SPLITS}
    orders = imdb_arrays.keras_orders(*map(len, reviews.values()))
    ordered = {split: [found[i] for i in order] for (split, found), order in zip(reviews.items(), orders, strict=True)}
    train = ordered["train"][validation_size:]
    tokenizer = fitted(empty, _shown("Choosing n-grams", train), _labels(train))
    (folder / _WORDS).write_bytes(b"\n".join(tokenizer.words))
    for split, examples in ordered.items():
        tokens = _tokens(tokenizer, _shown(f"n-grams of IMDB {split}", examples))
        np.save(folder / f"{split}_tokens.npy", tokens, allow_pickle=False)
        np.save(folder / f"{split}_labels.npy", _labels(examples), allow_pickle=False)


def _shown(what: str, examples: list[tuple[bytes, int]]) -> Iterator[bytes]:
    return (text for text, _ in tqdm.tqdm(examples, desc=what, unit=" reviews", file=sys.stderr))


def _open(folder: Path, empty: NgramTokenizer, validation_size: int) -> Corpus:
    words = tuple(array_folder.checked(folder, _WORDS).read_bytes().split())
    train = array_folder.open_split(folder, "train")
    return Corpus(
        tokenizer=NgramTokenizer(words, empty.settings, empty.max_length, empty.rules, empty.keep),
        train=Split(train.tokens[validation_size:], train.labels[validation_size:]),
        validation=Split(train.tokens[:validation_size], train.labels[:validation_size]),
        test=functools.partial(array_folder.open_split, folder, "test"),
    )
