"""The IMDB corpus with the vocabulary and order of `keras.datasets.imdb`: tokenised once, then memory-mapped."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.data import array_folder, imdb, imdb_archive, imdb_location, tokenizer
from experiments.data.corpus import Corpus, Split
from experiments.data.tokenizer import KERAS, Tokenizer, WordRules
from experiments.errors import DataError

FORMAT = 1  # raise it when the same archive and settings give different arrays
VOCABULARY_SIZE, MAX_LENGTH = 10_000, 256
TRAIN_SIZE = 25_000  # with the validation reviews
VALIDATION_SIZE = 10_000  # the first reviews of the shuffled training data, as in the examples of Keras
SHUFFLE_SEED = 113  # that of keras.datasets.imdb


def load(
    vocabulary_size: int | None = None,
    max_length: int | None = None,
    data_dir: Path | None = None,
    archive: Path | None = None,
    rules: WordRules = KERAS,
    keep: str = "last",
) -> Corpus:
    """Loads the IMDB corpus: 15,000 reviews for training, 10,000 for validation and 25,000 for test, in the order of Keras.

    The first call prepares the archive, which takes 10 s. The first call with given settings tokenises it, which takes 15 s.
    Later calls map the arrays.

    Args:
      vocabulary_size: Ids from this number on become 2. None is 10,000.
      max_length: The number of tokens of a review. None is 256.
      data_dir: The data directory; see `imdb.prepare`.
      archive: The archive; see `imdb.prepare`.
      rules: What a word is.
      keep: Which tokens are kept of a longer review; see `Tokenizer`.

    Raises:
      ValueError: A setting is out of its range.
      DataError: The data is missing or damaged.
    """
    settings = {
        "vocabulary_size": VOCABULARY_SIZE if vocabulary_size is None else vocabulary_size,
        "max_length": MAX_LENGTH if max_length is None else max_length,
    }
    tokenizer.check_settings(**settings)
    prepared = imdb.prepare(archive, data_dir)
    identity = {"format": FORMAT, "archive_sha256": imdb.prepared_sha256(prepared), **settings}
    if (rules, keep) != (KERAS, "last"):  # without these, the name of the folder is that from before they existed
        identity |= {"lowercase": rules.lowercase, "filters": rules.filters, "keep": keep}
    if rules.marks:
        identity |= {"marks": rules.marks}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = imdb_location.data_directory(data_dir) / "imdb_labeled_arrays" / digest[:16]
    if not folder.exists():  # it has its name only when it is complete
        empty = Tokenizer((), **settings, rules=rules, keep=keep)
        array_folder.create(
            folder, identity, lambda staging: _tokenise(staging, prepared, empty), "IMDB cannot be tokenised into"
        )
    return _open(folder, **settings, rules=rules, keep=keep)


def keras_orders(*sizes: int) -> list[np.ndarray]:
    """Returns for each split the indices of its reviews in the order of Keras. One random state shuffles train, then test."""
    random = np.random.RandomState(SHUFFLE_SEED)
    orders = [np.arange(size) for size in sizes]
    for order in orders:
        random.shuffle(order)
    return orders


def _tokenise(folder: Path, prepared: Path, empty: Tokenizer) -> None:
    """Writes the arrays with a tokenizer that has no words yet."""
    reviews = {split: read(prepared, split) for split in imdb_archive.SPLITS}
    words = tokenizer.rank_words(tokenizer.count_words((text for text, _ in reviews["train"]), empty.rules))
    (folder / "words.txt").write_bytes(b"\n".join(words))  # no word contains a newline; some are not UTF-8
    encoder = dataclasses.replace(empty, words=words)
    for (split, examples), order in zip(reviews.items(), keras_orders(*map(len, reviews.values())), strict=True):
        tokens, labels = _arrays(encoder, [examples[i] for i in order])
        np.save(folder / f"{split}_tokens.npy", tokens, allow_pickle=False)
        np.save(folder / f"{split}_labels.npy", labels, allow_pickle=False)


def read(prepared: Path, split: str) -> list[tuple[bytes, int]]:
    """Returns text and label of each review of a split. Raises DataError if the prepared dataset is damaged."""
    from experiments.data import imdb_builder

    try:
        return list(imdb_builder.read(prepared, split))
    except Exception as error:  # tfds, protobuf and array_record raise errors of their own
        reason = f"{split}: {imdb_archive.one_line(error)}"
        raise DataError(f"{prepared} is damaged ({reason}); remove it to prepare it again") from error


def _arrays(encoder: Tokenizer, examples: Sequence[tuple[bytes, int]]) -> tuple[np.ndarray, np.ndarray]:
    import tqdm

    shown = tqdm.tqdm(examples, desc="Tokenising IMDB", unit=" reviews")
    tokens = encoder.pad([encoder.encode(text).ids for text, _ in shown])
    return tokens, np.array([label for _, label in examples], np.int8)


def _open(folder: Path, vocabulary_size: int, max_length: int, rules: WordRules, keep: str) -> Corpus:
    words = tuple(array_folder.checked(folder, "words.txt").read_bytes().split(b"\n"))
    train = array_folder.open_split(folder, "train")
    return Corpus(
        tokenizer=Tokenizer(words, vocabulary_size, max_length, rules, keep),
        train=Split(train.tokens[VALIDATION_SIZE:], train.labels[VALIDATION_SIZE:]),
        validation=Split(train.tokens[:VALIDATION_SIZE], train.labels[:VALIDATION_SIZE]),
        test=functools.partial(array_folder.open_split, folder, "test"),
    )
