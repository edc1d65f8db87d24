"""Corpora of any labelled texts: tokenised once in bounded memory, kept under the hash of their content, and memory-mapped."""

import functools
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tqdm

from experiments.data import array_folder, imdb_location, kinds, sources, text_labels, text_tokens, text_words
from experiments.data.corpus import Corpus
from experiments.data.sources import SPLITS, Source
from experiments.data.text_labels import TEST, Labelled, Shares
from experiments.data.tokenizer import FIRST_RANK_OFFSET, Tokenizer, WordRules
from experiments.errors import DataError
from experiments.storage import files

FORMAT = 1  # raise it when the same content and settings give different arrays
VOCABULARY_SIZE, MAX_LENGTH = 10_000, 256  # where the config has none: at most, because small data needs less
_ARRAYS, _SUMS, _WORDS, _ABOUT = "text_arrays", "sha256", "words.txt", "corpus.json"


def load(data: Any, rules: WordRules, data_dir: Path | None = None) -> Corpus:
    """Loads the texts that `config.data` names, and prepares them first if this content was not prepared with these settings.

    The words are ranked by their frequency in the texts for training and validation, as those of IMDB are. The test texts are
    not counted.

    Args:
      data: `config.data`.
      rules: What a word is.
      data_dir: Where the arrays are kept; see `imdb_location.data_directory`.

    Raises:
      UsageError: A field does not fit the data.
      DataError: The data is missing, breaks a rule, or changes while it is read. Then nothing is kept.
    """
    arrays = imdb_location.data_directory(data_dir) / _ARRAYS
    source = _source(data, data_dir, arrays / _SUMS)
    content = source.content()
    identity = {"format": FORMAT, "content": content, "splits": list(source.splits), "text": data.text, "label": data.label}
    identity |= {"encoding": data.encoding, "lowercase": rules.lowercase, "filters": rules.filters, "keep": data.keep}
    if rules.marks:
        identity |= {"marks": rules.marks}
    identity |= {"vocabulary_size": data.vocabulary_size, "max_length": data.max_length, "split_seed": data.split_seed}
    identity |= {"validation_share": data.validation_share, "test_share": data.test_share}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = arrays / digest[:16]
    if not folder.exists():  # it has its name only when it is complete
        _prepare(folder, source, data, rules, identity)
    source.keep()
    return _open(folder, rules, data.keep)


def _source(data: Any, data_dir: Path | None, sums: Path) -> Source:
    if data.name == "csv":
        from experiments.data import file_source

        return file_source.source(data, sums)
    if data.name.startswith(kinds.DATASET):
        from experiments.data import tfds_source

        return tfds_source.source(data, imdb_location.data_directory(data_dir), sums)
    return sources.registered(data)


def _prepare(folder: Path, source: Source, data: Any, rules: WordRules, identity: dict[str, Any]) -> None:
    def fill(staging: Path) -> None:
        started = time.monotonic()
        rows = _write(staging, source, data, rules)
        if source.content() != identity["content"]:
            raise DataError(f"{source.name} has changed while it was read: nothing was kept of it")
        seconds = time.monotonic() - started
        print(f"Prepared {rows:,} texts in {seconds:.0f} s, {rows / seconds:,.0f} a second: {folder}", file=sys.stderr)

    array_folder.create(folder, identity, fill, f"{source.name} cannot be prepared in", resumable=True)


def _write(staging: Path, source: Source, data: Any, rules: WordRules) -> int:
    """Writes all files but the manifest. Returns the number of texts."""
    shares = Shares(data.validation_share, data.test_share, data.split_seed)
    with _bar("Checking labels", None) as bar:
        labelled = text_labels.read(source, shares, _ticks(bar))
    rows = len(labelled.labels)
    if not (staging / _ABOUT).exists():  # which is written when all words are
        with _bar("Counting words", rows) as bar:
            counted = text_words.count(staging, lambda first: _counted(source, labelled, first, bar), rules)
        files.write_whole(staging / _WORDS, b"\n".join(counted.words))
        files.write_json(staging / _ABOUT, {"classes": labelled.classes, **_sizes(counted, data)})
    tokenizer = _tokenizer((staging / _WORDS).read_bytes(), files.read_object(staging / _ABOUT), rules, data.keep)
    with _bar("Writing tokens", rows) as bar:
        text_tokens.write(staging, lambda first: _texts(source, rows, first, bar), labelled, tokenizer)
    for part in (*staging.glob("words_*"), staging / text_tokens.MARKER):
        part.unlink()
    return rows


def _sizes(counted: text_words.Counted, data: Any) -> dict[str, int]:
    size, length = data.vocabulary_size, data.max_length
    if size is None:
        size = min(VOCABULARY_SIZE, FIRST_RANK_OFFSET + 1 + len(counted.words))
    if length is None:
        length = min(MAX_LENGTH, counted.longest + 1)  # with the token of the start
    return {"vocabulary_size": size, "max_length": length}


def _tokenizer(words: bytes, about: dict[str, Any], rules: WordRules, keep: str) -> Tokenizer:
    return Tokenizer(tuple(words.split(b"\n")), about["vocabulary_size"], about["max_length"], rules, keep)


def _texts(source: Source, rows: int, first: int, bar: tqdm.tqdm) -> Iterator[bytes]:
    """Yields the texts behind so many, those of train, validation and test in this order."""
    bar.n = bar.initial = first  # so that its rate is that of this process
    if first:
        bar.refresh()
    every = itertools.chain.from_iterable(source.splits[name]() for name in SPLITS if name in source.splits)
    number = first
    for number, (text, _) in enumerate(itertools.islice(every, first, None), start=first + 1):
        if number > rows:
            break
        yield text
        bar.update()
    if number != rows:
        raise DataError(f"{source.name} has changed while it was read: nothing was kept of it")


def _counted(source: Source, labelled: Labelled, first: int, bar: tqdm.tqdm) -> Iterator[tuple[bytes, bool]]:
    texts = _texts(source, len(labelled.splits), first, bar)
    for text, split in zip(texts, labelled.splits[first:], strict=True):
        yield text, split != TEST


def _bar(what: str, rows: int | None) -> tqdm.tqdm:
    return tqdm.tqdm(desc=what, unit=" texts", total=rows, mininterval=0.5)


def _ticks(bar: tqdm.tqdm) -> Iterator[None]:
    while True:
        bar.update()
        yield


def _open(folder: Path, rules: WordRules, keep: str) -> Corpus:
    words = array_folder.checked(folder, _WORDS).read_bytes()
    about = json.loads(array_folder.checked(folder, _ABOUT).read_bytes())
    return Corpus(
        tokenizer=_tokenizer(words, about, rules, keep),
        train=array_folder.open_split(folder, "train"),
        validation=array_folder.open_split(folder, "validation"),
        test=functools.partial(array_folder.open_split, folder, "test"),
        classes=tuple(about["classes"]),
    )
