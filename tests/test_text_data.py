"""Texts and labels of the user's own: their files, splits, words and tokens, and what is refused, in one line each."""

import csv
import gzip
import hashlib
import json
import mmap
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from experiments.command_line import commands
from experiments.data import (
    checksum,
    imdb_builder,
    sources,
    text_arrays,
    text_files,
    text_lines,
    text_tokens,
    text_words,
    verdicts,
)
from experiments.data.columns import Wanted
from experiments.data.tokenizer import KERAS, Tokenizer, WordRules, count_words, rank_words
from experiments.errors import DataError, UsageError
from experiments.machine.stopping import Stopped
from experiments.training import build
from tests import tars

ROWS = [(f"the film number {i % 7} was {'dull' if i % 3 else 'good, really good'}", f"c{i % 3}") for i in range(60)]


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def config(**fields: Any) -> Any:
    from experiments import settings

    page = settings.load_page("transformer", "csv")
    for name, value in fields.items():
        page.data[name] = str(value) if isinstance(value, Path) else value
    settings.check(page)
    return page


def write(path: Path, rows: Any = ROWS, header: tuple[str, ...] = ("review", "label"), delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def read(path: Path, text: str | None = None, label: str | None = None, encoding: str | None = None) -> list[tuple[bytes, str]]:
    return list(text_files.reader_of(path)(path, Wanted(text, label), encoding))


HARD = [('a, "quoted"\nreview', "x"), ("caf\u00e9\u2028\u0085 \U0001f600", "y"), ("a\ttab\rand\x00more", "x")]


def parquet_file(path: Path) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"id": [1, 2, 3], "text": [t for t, _ in HARD], "label": [c for _, c in HARD]}), path)
    return path


def json_file(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in HARD))
    return path


def gzipped(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: write(folder / "a.csv", HARD),
        lambda folder: gzipped(write(folder / "a.csv", HARD)),
        lambda folder: write(folder / "a.tsv", HARD, delimiter="\t"),
        lambda folder: json_file(folder / "a.jsonl"),
        lambda folder: gzipped(json_file(folder / "a.jsonl")),
        lambda folder: parquet_file(folder / "a.parquet"),
    ],
)
def test_each_format_gives_the_same_rows(make: Any, tmp_path: Path):
    assert read(make(tmp_path)) == [(text.encode(), label) for text, label in HARD]


def test_encodings(tmp_path: Path):
    (path := tmp_path / "a.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    assert read(path, encoding="latin-1") == [("café".encode(), "x")]
    path.write_bytes("\ufefftext,label\ncafé,x\n".encode())  # with a byte order mark
    assert read(path) == [("café".encode(), "x")]


def test_the_labels_of_a_file_of_hugging_face_have_names(tmp_path: Path):
    import pyarrow
    from pyarrow import parquet

    told = json.dumps({"info": {"features": {"label": {"names": ["World", "Sports"], "_type": "ClassLabel"}}}})
    table = pyarrow.table({"text": ["a", "b"], "label": [1, 0]}).replace_schema_metadata({"huggingface": told})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [label for _, label in read(tmp_path / "a.parquet")] == ["Sports", "World"]


def test_a_row_group_of_parquet_is_never_in_memory(tmp_path: Path):
    """A file may be a single row group; Arrow holds a few of its texts at a time."""
    import pyarrow
    from pyarrow import parquet

    size, texts = 16_000_000, [f"{i} ".ljust(1_000, "x") for i in range(16_000)]
    table = pyarrow.table({"text": texts, "label": ["a", "b"] * 8_000})
    parquet.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, row_group_size=16_000)
    del table
    assert parquet.read_metadata(tmp_path / "a.parquet").row_group(0).total_byte_size > size
    before, highest = pyarrow.total_allocated_bytes(), 0
    for number, _ in enumerate(text_files.reader_of(path := tmp_path / "a.parquet")(path, Wanted(None, None), None)):
        if number % 1_000 == 0:
            highest = max(highest, pyarrow.total_allocated_bytes() - before)
    assert 0 < highest < size / 4


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", None], ["x", "y"], "row 2: the text is empty"),
        ([b"a", b"b"], ["x", "y"], "row 1: the text is bytes, not a text"),
        (["a", "b"], [0, None], "row 2: the label is empty"),
        (["a", "b", "c"], [0, 1, 2], "row 3: the label is 2, and the file has names for 0 to 1"),
        (["a", "b", "c"], [0, -1, 1], "row 2: the label is -1, and the file has names for 0 to 1"),
        (b"ab\xe9", [0, 1, 1], "row 3 is not UTF-8"),
    ],
)
def test_bad_rows_of_parquet(texts: Any, labels: Any, message: str, tmp_path: Path):
    import pyarrow
    from pyarrow import parquet

    if isinstance(texts, bytes):  # pyarrow does not check such bytes
        offsets = np.arange(len(texts) + 1, dtype=np.int32)
        texts = pyarrow.Array.from_buffers(pyarrow.string(), len(texts), [None, *map(pyarrow.py_buffer, (offsets, texts))])
    told = json.dumps({"info": {"features": {"label": {"names": ["World", "Sports"]}}}})
    table = pyarrow.table({"text": texts, "label": labels}).replace_schema_metadata({"huggingface": told})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=f"^{tmp_path}/a.parquet, {message}$"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\nab,x\n"{}",y\n'),
        ("a.jsonl", '{{"text": "ab", "label": "x"}}\n{{"text": "{}", "label": "y"}}\n'),
        ("a.parquet", ""),
    ],
)
def test_the_longest_text(name: str, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(text_lines, "LARGEST", 60)
    before = csv.field_size_limit(60)
    try:
        for length in (20, 61):
            text = "z" * length
            (tmp_path / name).write_text(content.format(text))
            if not content:
                parquet.write_table(pyarrow.table({"text": ["ab", text], "label": ["x", "y"]}), tmp_path / name)
            if length == 20:
                assert read(tmp_path / name) == [(b"ab", "x"), (text.encode(), "y")]
        with pytest.raises(DataError, match=r"(line 3|line 2|row 2)\b.*(longer than 60|limit \(60\)|more than 60)"):
            read(tmp_path / name)
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "a.csv is empty: its first line must have the names of the columns"),
        ("a.csv", b"text,label\n", "a.csv has no train texts"),
        ("a.csv", b"a,b\n1,2\n", "config.data.text=None must be the name of a column of a.csv: none of a, b has a usual name"),
        ("a.csv", b"text,review,label\n", "text, review, label have a usual name"),
        ("a.csv", b"text;label\na;x\n", "a.csv has one column, 'text;label': commas must separate its columns"),
        ("a.tsv", b"text,label\na,x\n", "a.tsv has one column, 'text,label': tabs must separate its columns"),
        (
            "a.csv",
            "text,label\na,x\n".encode("utf-16"),
            "a.csv, line 1 is not utf-8: name its encoding with config.data.encoding",
        ),
        ("a.jsonl", b'[{"text": "a", "label": 1}]\n', "a.jsonl, line 1 is not a JSON object"),
        ("a.csv", b"text,label\na,x\nb\n", "a.csv, line 3 has 1 column, and the first line has 2"),
        ("a.csv", b'text,label\n"a\nb",x\nc,d,e\n', "a.csv, line 4 has 3 columns, and the first line has 2"),
        ("a.csv", b'text,label\n"a,x\nb,y\n', "a.csv, line 2 is no row of a table: unexpected end of data"),
        ("a.csv", b"text,label\na,x\n  ,x\n", "a.csv, line 3: the text is empty"),
        ("a.csv", b"text,label\na,x\nb, \n", "a.csv, line 3: the label is empty"),
        ("a.csv", b"text,label\na,x\ncaf\xe9,y\n", "a.csv, line 3 is not utf-8: name its encoding with config.data.encoding"),
        ("a.csv", b"text,label\na,x\nb,x\n", "a.csv has one label, 'x': a classifier needs two"),
        ("a.csv", b"text,label\na,x\nb,x\nc,y\n", "a.csv has one text only with the label 'y': each needs two or more"),
        ("a.csv", b"text,label\na,x\nb,x\nc,y\nd,y\n", "a.csv has 2 texts with the label 'x': divided into train, validation"),
        ("a.csv.gz", gzip.compress(b"text,label\na,x\n" * 99, mtime=0)[:-9], "a.csv.gz is not an intact gzip file"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "a"}\n', "a.jsonl, line 2 has no 'label': it has text"),
        ("a.jsonl", b'{"text": "a", "label": 1}\nno\n', "a.jsonl, line 2 is not JSON: "),
        ("a.jsonl", b'{"text": 3, "label": 1}\n', "a.jsonl, line 1: the text is int, not a text"),
        ("a.jsonl", b'{"text": "\\ud800", "label": 1}\n', "a.jsonl, line 1: the text has half of a surrogate pair"),
        ("a.parquet", b"PAR1", "a.parquet is not an intact Parquet file"),
        ("a.xlsx", b"", "a.xlsx must end with .csv, .tsv, .jsonl"),
    ],
)
def test_bad_input_is_told_in_one_line(
    name: str, content: bytes, message: str, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    arguments = ["train", tiny.PAGE.removesuffix(":verdicts"), "--workdir=run", "--config.data.name=csv"]
    assert commands.main([*arguments, f"--config.data.path={name}"]) in (2, 4)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not data_dir.exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"text": "txt"}, ROWS, "config.data.text=txt must be a column of .*: its columns are review, label"),
        ({"test_share": 0.2}, ROWS, "config.data.test_share=0.2 must be None: .* has test texts of its own"),
        ({}, [("a", "zebra")], "test has the label 'zebra', and train has none of it"),
        ({}, [("a", "zebra"), ("b", "ant")], "test has the 2 labels 'ant', 'zebra', and train has none of them"),
    ],
)
def test_two_files(changes: dict[str, Any], rows: Any, message: str, tmp_path: Path, data_dir: Path):
    train, test = write(tmp_path / "a.csv"), write(tmp_path / "b.csv", rows)
    with pytest.raises((UsageError, DataError), match=message):
        build.build_corpus(config(path=f"train={train},test={test}", **changes))
    assert not data_dir.exists()


def test_the_corpus_by_hand(tmp_path: Path):
    train = write(tmp_path / "a.csv", [("b a b", "10"), ("c", "9"), ("a b", "9"), ("b", "10")])
    validation, test = write(tmp_path / "b.csv", [("c d", "9")]), write(tmp_path / "c,1.csv", [("e b a c d d", "10")])
    corpus = build.build_corpus(config(path=f"train={train},validation={validation},test={test}"))
    assert corpus.classes == ("9", "10")  # in the order of numbers
    assert corpus.tokenizer.words == (b"b", b"a", b"c", b"d")  # those of validation too, as for IMDB; none of test
    assert (corpus.tokenizer.vocabulary_size, corpus.tokenizer.max_length) == (8, 4)
    np.testing.assert_array_equal(corpus.train.tokens, [[1, 4, 5, 4], [1, 6, 0, 0], [1, 5, 4, 0], [1, 4, 0, 0]])
    np.testing.assert_array_equal(corpus.train.labels, [1, 0, 0, 1])
    np.testing.assert_array_equal(corpus.validation.tokens, [[1, 6, 7, 0]])
    np.testing.assert_array_equal(corpus.test().tokens, [[5, 6, 7, 7]])  # e is unknown, and the last four are kept


def test_the_split_keeps_the_shares_of_the_labels(tmp_path: Path):
    path = write(tmp_path / "a.csv", [(f"text {i % 77}", "rare" if i % 10 == 0 else "common") for i in range(1000)])
    corpora = [build.build_corpus(config(path=path, split_seed=seed, test_share=0.2)) for seed in (0, 0, 1)]
    for corpus in corpora:
        parts = [np.bincount(split.labels).tolist() for split in (corpus.train, corpus.validation, corpus.test())]
        assert parts == [[648, 72], [72, 8], [180, 20]]
    texts = [corpus.test().tokens.tolist() for corpus in corpora]
    assert texts[0] == texts[1] != texts[2]


def test_the_embedded_corpus_from_files(tmp_path: Path):
    """The same tokens as from the tokenizer itself, with the words of the texts that are no test texts."""
    reviews = verdicts.reviews(0)
    files = {name: write(tmp_path / f"{name}.csv", [(t, ("neg", "pos")[y]) for t, y in rows]) for name, rows in reviews.items()}
    corpus = build.build_corpus(config(path=",".join(f"{name}={path}" for name, path in files.items())))
    words = rank_words(count_words(text.encode() for name in ("train", "validation") for text, _ in reviews[name]))
    tokenizer = Tokenizer(words, 4 + len(words), verdicts.MAX_WORDS + 1)
    for name, split in (("train", corpus.train), ("validation", corpus.validation), ("test", corpus.test())):
        wanted = tokenizer.pad([tokenizer.encode(text.encode()).ids for text, _ in reviews[name]])
        np.testing.assert_array_equal(split.tokens, wanted)
        np.testing.assert_array_equal(split.labels, [label for _, label in reviews[name]])
        assert (split.tokens.dtype, split.labels.dtype) == (np.uint16, np.int8)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("end", [Killed(), Stopped(signal.SIGTERM)])
def test_a_preparation_that_was_killed_goes_on(
    end: BaseException, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed in the second and in the third pass, at each part; nothing is done twice, and the arrays are the same."""
    path = write(tmp_path / "a.csv")
    whole = build.build_corpus(config(path=path))
    tokens, test = np.array(whole.train.tokens), np.array(whole.test().tokens)
    (folder,) = (data_dir / "text_arrays").iterdir()
    folder.rename(tmp_path / "whole")
    monkeypatch.setattr(text_words, "PART_BYTES", 500)
    monkeypatch.setattr(text_tokens, "ROWS", 7)
    kills, written, appended, passes, count = [0], [], [], [], text_words.count
    monkeypatch.setattr(text_words, "count", lambda *arguments: (passes.append(1), count(*arguments))[1])
    write_part, append = text_words._write, text_tokens._append

    def then_die(function: Any, log: list[Any]) -> Any:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            log.append(arguments[1] if function is write_part else arguments[2])
            if len(log) % 2 == 0:
                kills[0] += 1
                raise end
            return result

        return call

    monkeypatch.setattr(text_words, "_write", then_die(write_part, written))
    monkeypatch.setattr(text_tokens, "_append", then_die(append, appended))
    corpus = None
    while corpus is None:
        try:
            corpus = build.build_corpus(config(path=path))
        except type(end):
            assert not folder.exists()
            assert kills[0] < 30
    assert kills[0] >= 6
    assert len(passes) == len(written) // 2 + 1, "the words are not counted again in the last pass"
    assert len(set(appended)) == len(appended), "nothing is written twice"
    np.testing.assert_array_equal(corpus.train.tokens, tokens)
    np.testing.assert_array_equal(corpus.test().tokens, test)
    assert [each.name for each in (data_dir / "text_arrays").iterdir()] == [folder.name]


def test_the_bar_of_a_pass_that_goes_on():
    """It begins at what is done, and its rate is that of the rest."""
    with text_arrays._bar("Counting words", 60) as bar:
        texts = list(text_arrays._texts(sources.from_rows("rows", {"train": ROWS}), 60, 40, bar))
    assert texts == [text.encode() for text, _ in ROWS[40:]]
    assert (bar.initial, bar.n, bar.total) == (40, 60, 60)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    path, count = write(tmp_path / "a.csv"), text_words.count

    def change(*arguments: Any) -> Any:
        write(path, [*ROWS[:-1], ("another text", "c1")])
        return count(*arguments)

    monkeypatch.setattr(text_words, "count", change)
    with pytest.raises(DataError, match=r"a\.csv has changed while it was read: nothing was kept of it$"):
        build.build_corpus(config(path=path))
    assert not data_dir.exists()


def test_a_prepared_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.csv")
    first = build.build_corpus(config(path=path))
    monkeypatch.setattr(text_arrays, "_prepare", lambda *_: pytest.fail("prepared again"))
    assert build.build_corpus(config(path=path.rename(tmp_path / "b.csv"))).sha256 == first.sha256


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are hashed, where each is large, and none has changed in the last minute."""
    log, digest = [], hashlib.file_digest

    def logged(file: Any, name: str) -> Any:
        log.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", logged)
    monkeypatch.setattr(checksum, "LARGE", 0)
    monkeypatch.setattr(checksum, "SETTLED", -(10**9))
    return log


def _sums(path: Path, folder: Path) -> checksum.Hashed:
    return checksum.Hashed({"train": path}, folder)


def test_a_file_that_has_not_changed_is_not_hashed_again(tmp_path: Path, data_dir: Path, hashes: list[str]):
    path = write(tmp_path / "a.csv")
    first = build.build_corpus(config(path=path))
    assert hashes.count("a.csv") == 1, "neither when its rows have been read"
    assert build.build_corpus(config(path=path)).sha256 == first.sha256
    assert hashes.count("a.csv") == 1
    write(path, [*ROWS[:-1], ("the film number 9 was dull", "c1")])
    assert build.build_corpus(config(path=path)).sha256 != first.sha256
    assert hashes.count("a.csv") == 2


def _in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"B")


def _another(path: Path) -> None:
    path.with_name("b").write_bytes(b"B" + path.read_bytes()[1:])
    os.utime(path.with_name("b"), ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    path.with_name("b").replace(path)


def _mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        content[0] = ord("B")


@pytest.mark.parametrize("change", [_in_place, _another, _mapped])
def test_a_change_that_hides_is_found(change: Any, tmp_path: Path, hashes: list[str]):
    """The size stays, and the time of modification is set back."""
    (path := tmp_path / "a").write_bytes(b"a" * 5_000)
    sums = _sums(path, tmp_path / "sums")
    before, times = sums.content(), path.stat()
    sums.keep()
    assert (sums.content(), _sums(path, tmp_path / "sums").content()) == (before, before)
    assert len(hashes) == 1
    time.sleep(0.02)  # a file system may have a time for every 10 ms only
    change(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    after = _sums(path, tmp_path / "sums").content()
    assert sums.content() == after != before


def test_a_hash_is_kept_of_what_is_at_rest(tmp_path: Path, hashes: list[str], monkeypatch: pytest.MonkeyPatch):
    """Not of a file that changed in the last minute or while it was read, nor of a small one, and a damaged one is no hash."""
    (path := tmp_path / "a").write_bytes(b"a" * 5_000)
    sums = _sums(path, folder := tmp_path / "sums")
    with monkeypatch.context() as changed:
        changed.setattr(checksum, "SETTLED", 60 * 10**9)
        assert sums.content() == sums.content()
    with monkeypatch.context() as changed:
        changed.setattr(checksum, "LARGE", 5_001)
        sums.content()
    with monkeypatch.context() as changed:
        digest = hashlib.file_digest
        changed.setattr(hashlib, "file_digest", lambda *arguments: (digest(*arguments), time.sleep(0.02), _in_place(path))[0])
        sums.content()
    sums.keep()
    assert (len(hashes), folder.exists()) == (4, False)
    whole = sums.content()
    sums.keep()
    (record,) = folder.iterdir()
    record.write_bytes(record.read_bytes()[:-1])
    assert (_sums(path, folder).content(), len(hashes)) == (whole, 6)


def test_a_refused_file_leaves_no_hash(tmp_path: Path, data_dir: Path, hashes: list[str]):
    for rows in ([*ROWS, ("", "c1")], [*ROWS, ("alone", "c3")]):
        with pytest.raises(DataError):
            build.build_corpus(config(path=write(tmp_path / "a.csv", rows)))
        assert not data_dir.exists()


def test_the_most_frequent_words_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr(text_words, "MOST_WORDS", 2)
    texts = [(b"b a c", True), (b"c b d", True), (b"z z z z", False)]
    counted = text_words.count(tmp_path, lambda first: texts[first:], KERAS)
    assert counted == ((b"b", b"c"), 3)
    assert capsys.readouterr().err == "The 2 most frequent of 4 words are kept.\n"


@pytest.mark.parametrize(("keep", "kept"), [("last", [4, 5, 6, 7, 8]), ("first", [1, 4, 5, 6, 7]), ("ends", [1, 4, 5, 7, 8])])
def test_what_is_kept_of_a_long_text(keep: str, kept: list[int]):
    tokenizer = Tokenizer((b"a", b"b", b"c", b"d", b"e"), 9, 5, keep=keep)
    assert tokenizer.pad([tokenizer.encode(b"a b c d e").ids]).tolist() == [kept]
    assert tokenizer.kept([*tokenizer.kept([1, 4, 5, 6, 7, 8]), 9]) == tokenizer.kept([1, 4, 5, 6, 7, 8, 9])


def test_rules_of_words():
    assert WordRules(lowercase=False).split(b"The film, THE\nend") == [b"The", b"film", b"THE", b"end"]
    assert WordRules(filters="x").split(b"a,bxC d\ne") == [b"a,b", b"c", b"d", b"e"]
    assert WordRules(filters="").split(b"a.b c") == [b"a.b", b"c"]


@sources.register("mine")
def mine(data: Any) -> Any:
    return {"train": ROWS, "test": ROWS[:6]}


@sources.register("once")
def once(data: Any) -> Any:
    return {"train": iter(ROWS)}


def test_a_registered_source(tmp_path: Path):
    corpus = build.build_corpus(config(name=f"{__name__}:mine"))
    assert (corpus.classes, len(corpus.train.labels), len(corpus.test().labels)) == (("c0", "c1", "c2"), 54, 6)
    for name, message in (
        ("nothing", r"has not registered 'nothing'; its sources are .*:mine"),
        ("once", "the rows of train are an iterator"),
    ):
        with pytest.raises(UsageError, match=message):
            build.build_corpus(config(name=f"{__name__}:{name}"))
    with pytest.raises(UsageError, match=r"no_such_module cannot be imported"):
        build.build_corpus(config(name="no_such_module:mine"))


def test_a_contradiction_of_classes_is_refused(tmp_path: Path):
    page = config(path=write(tmp_path / "a.csv"))
    page.model.num_classes = 2
    with pytest.raises(UsageError, match=r"^config.model.num_classes=2 must be 3, the classes of csv, or None$"):
        build.build_corpus(page)


def test_train_and_predict(tmp_path: Path, capsys: Any, fast_compilation: None):
    path, workdir = write(tmp_path / "a.csv"), tmp_path / "run"
    flags = [f"--config.data.path={path}", "--config.data.name=csv", *tiny.FLAGS[1:]]
    assert commands.main(["train", tiny.PAGE.removesuffix(":verdicts"), f"--workdir={workdir}", *flags]) == 0
    result = json.loads((workdir / "result.json").read_bytes())
    assert list(result["test"]["recall"]) == ["c0", "c1", "c2"]
    assert np.array(result["test"]["confusion"]).sum() == 6
    assert result["test"]["accuracy"] == result["test_accuracy"]
    assert (workdir / "confusion.png").exists()
    capsys.readouterr()
    assert commands.main(["predict", f"--workdir={workdir}", "--words=the film was dull", "--all"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] in ("c0", "c1", "c2")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["probability"] == max(answer["probabilities"].values())
    train = ["train", tiny.PAGE.removesuffix(":verdicts"), f"--workdir={workdir}", *flags]
    assert commands.main(train) == 0
    assert "is finished: there is nothing to train" in "".join(capsys.readouterr())
    write(path, [*ROWS[:-1], ("another film", "c1")])
    assert commands.main(train) == 4
    assert "was trained on another version of the corpus csv" in capsys.readouterr().err


def test_a_prepared_dataset(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Its rows and the names of its labels, against the archive that it was made from."""
    data_dir.mkdir()
    imdb_builder.write(data_dir, tars.write(tmp_path / "small.tgz", tars.official(12)), reviews_per_folder=12)
    corpus = build.build_corpus(config(name="tfds:imdb_labeled"))
    assert corpus.classes == ("neg", "pos")
    assert (len(corpus.train.labels), len(corpus.validation.labels), len(corpus.test().labels)) == (22, 2, 24)
    assert corpus.test().labels.tolist() == [1] * 12 + [0] * 12
    assert b"pos" in corpus.tokenizer.words
    for fields, message in (
        ({"name": "tfds:nothing"}, "config.data.name=tfds:nothing is not prepared in "),
        ({"text": "body"}, "config.data.text=body must be a column of tfds:imdb_labeled: its columns are label, text"),
    ):
        with pytest.raises((UsageError, DataError), match=message):
            build.build_corpus(config(**({"name": "tfds:imdb_labeled"} | fields)))
