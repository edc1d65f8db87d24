"""The arrays of IMDB: Keras' order and ids, kept whole or not at all; test untouched until it is asked for."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from experiments.data import imdb, imdb_arrays, imdb_builder, imdb_location
from experiments.errors import DataError
from tests import tars


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with a prepared archive of 4 x 3 reviews."""
    imdb_builder.write(tmp_path, tars.write(tmp_path / "small.tgz", tars.official(3)), reviews_per_folder=3)
    return tmp_path


def arrays_folder(data_dir: Path) -> Path:
    (folder,) = (data_dir / "imdb_labeled_arrays").iterdir()
    return folder


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_the_small_corpus_by_hand(data_dir):
    corpus = imdb_arrays.load(vocabulary_size=9, max_length=4, data_dir=data_dir)
    # Six times each "review" and "of" and "train"; three times "neg" and "pos"; twice "10", "100", "9". Ties by bytes.
    assert corpus.tokenizer.words == (b"of", b"review", b"train", b"neg", b"pos", b"10", b"100", b"9")
    # "review 100 of train/pos" is 1 5 (10) 4 6 8, where ids from 9 on are 2; its last four are kept.
    rows = {1: [2, 4, 6, 8], 0: [2, 4, 6, 7]}
    order = list(range(6))
    random = np.random.RandomState(113)
    random.shuffle(order)
    labels = [int(index < 3) for index in order]
    np.testing.assert_array_equal(corpus.validation.labels, labels)  # 6 reviews are all validation
    np.testing.assert_array_equal(corpus.validation.tokens, [rows[label] for label in labels])
    order = list(range(6))
    random.shuffle(order)
    np.testing.assert_array_equal(corpus.test().labels, [int(index < 3) for index in order])
    assert len(corpus.train.tokens) == 0
    assert (corpus.test().tokens.dtype, corpus.test().labels.dtype) == (np.uint16, np.int8)
    # "test" is no word of train: dropped, so that one more word of the beginning stays.
    assert {tuple(row) for row in corpus.test().tokens} == {(5, 2, 4, 8), (5, 2, 4, 7)}


def test_other_settings_make_other_arrays(data_dir):
    lengths = {imdb_arrays.load(9, length, data_dir).validation.tokens.shape[1] for length in (4, 5, 4)}
    assert lengths == {4, 5}
    assert len(list((data_dir / "imdb_labeled_arrays").iterdir())) == 2


def test_test_is_not_read_before_it_is_asked_for(data_dir):
    imdb_arrays.load(data_dir=data_dir)
    (arrays_folder(data_dir) / "test_tokens.npy").unlink()
    (arrays_folder(data_dir) / "test_labels.npy").unlink()
    corpus = imdb_arrays.load(data_dir=data_dir)
    with pytest.raises(DataError, match=r"is damaged \(test_tokens.npy: .*No such file"):
        corpus.test()


@pytest.mark.parametrize("name", ["train_tokens.npy", "train_labels.npy", "words.txt", "manifest.json"])
def test_a_flipped_bit_is_noticed(data_dir, name):
    imdb_arrays.load(data_dir=data_dir)
    flip_a_bit(arrays_folder(data_dir) / name)
    with pytest.raises(DataError, match=rf"^{arrays_folder(data_dir)} is damaged \(.*\); remove it to make it again$"):
        imdb_arrays.load(data_dir=data_dir)


@pytest.mark.parametrize("name", ["imdb_labeled-test.array_record-00000-of-00001", "dataset_info.json", "features.json"])
def test_a_damaged_dataset_is_named(data_dir, name):
    path = data_dir / imdb_location.PREPARED / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=rf"^{path.parent} is damaged \(t.*\); remove it to prepare it again$"):
        imdb_arrays.load(data_dir=data_dir)
    assert {path.name for path in data_dir.iterdir()} == {"small.tgz", "imdb_labeled"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(data_dir, monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(imdb_arrays.np, "save", fail)
    expected = DataError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        imdb_arrays.load(data_dir=data_dir)
    assert {path.name for path in data_dir.iterdir()} == {"small.tgz", "imdb_labeled"}


@pytest.mark.parametrize("fails", [False, True])
def test_another_process_waits_for_the_first(data_dir, monkeypatch, fails):
    """Then it uses the arrays of the first, or makes them if the first has failed. A lock of a file is one of a descriptor."""
    tokenise, calls, others = imdb_arrays._tokenise, [], []

    def slowly(*arguments):
        calls.append(arguments[0].name)
        if len(calls) == 1:
            other = threading.Thread(target=lambda: others.append(imdb_arrays.load(data_dir=data_dir)))
            other.start()
            other.join(0.3)
            assert other.is_alive()
            others.append(other)
            if fails:
                raise OSError(28, "No space left on device")
        tokenise(*arguments)

    monkeypatch.setattr(imdb_arrays, "_tokenise", slowly)
    with pytest.raises(DataError, match="No space left") if fails else contextlib.nullcontext():
        imdb_arrays.load(data_dir=data_dir)
    others[0].join()
    assert len(others[1].validation.labels) == 6
    assert len(calls) == 1 + fails
    assert arrays_folder(data_dir).is_dir()  # one folder, and nothing beside it


def test_what_a_killed_process_has_left_is_no_obstacle(data_dir):
    imdb_arrays.load(data_dir=data_dir)
    folder = arrays_folder(data_dir)
    whole = (folder / "manifest.json").read_text()
    folder.rename(hidden := folder.with_name(f".{folder.name}.partial"))
    (hidden / "train_tokens.npy").write_bytes(b"half")
    folder.with_name(f".{folder.name}.lock").touch()
    assert len(imdb_arrays.load(data_dir=data_dir).validation.labels) == 6
    assert (arrays_folder(data_dir) / "manifest.json").read_text() == whole


def test_settings_are_refused_before_anything_is_prepared(tmp_path):
    with pytest.raises(ValueError, match="vocabulary_size=70000 is outside"):
        imdb_arrays.load(vocabulary_size=70_000, data_dir=tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_a_second_load_is_quick(data_dir):
    imdb_arrays.load(data_dir=data_dir)
    code = "from experiments.data import imdb_arrays as a; a.load(); import sys; print('tensorflow_datasets' in sys.modules)"
    environment = {**os.environ, "TFDS_DATA_DIR": str(data_dir)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_the_numbers_of_the_real_corpus(imdb_data_dir):
    full = imdb_arrays.load(vocabulary_size=2**16, max_length=2_500, data_dir=imdb_data_dir)
    tokens, labels = full.validation.tokens, full.validation.labels
    # The start mark included, as in Keras.
    np.testing.assert_array_equal((tokens[:10] > 0).sum(1), [218, 189, 141, 550, 147, 43, 123, 562, 233, 130])
    np.testing.assert_array_equal(labels[:10], [1, 0, 0, 1, 0, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal((full.test().tokens[:10] > 0).sum(1), [68, 260, 603, 181, 108, 132, 761, 180, 134, 370])
    words = full.tokenizer.words
    assert len(words) == 88_584
    assert tokens[0, :6].tolist() == [1, 14, 22, 16, 43, 529]
    assert [words[i - 4] for i in tokens[0, 1:6]] == [b"this", b"film", b"was", b"just", b"brilliant"]
    lengths = np.concatenate([(split.tokens > 0).sum(1) - 1 for split in (full.validation, full.train)])
    assert (round(lengths.mean(), 1), np.median(lengths), lengths.max()) == (237.7, 177, 2_493)
    assert round((lengths > 256).mean(), 3) == 0.299


def test_the_padding_of_the_real_corpus(imdb_data_dir, monkeypatch):
    corpus = imdb_arrays.load(data_dir=imdb_data_dir)
    assert (corpus.train.tokens.shape, corpus.validation.tokens.shape) == ((15_000, 256), (10_000, 256))
    tokens = np.concatenate([corpus.validation.tokens, corpus.train.tokens])
    assert round((tokens > 0).mean(), 3) == 0.708
    assert round((tokens == 2).mean(), 3) == 0.038  # of all positions, padding included
    assert tokens.max() == 9_999
    for split in (corpus.train, corpus.validation, corpus.test()):
        assert set(np.unique(split.labels)) == {0, 1}
    monkeypatch.setattr(imdb_arrays, "_tokenise", lambda *_: pytest.fail("a second start tokenised again"))
    assert isinstance(imdb_arrays.load(data_dir=imdb_data_dir).test().tokens, np.memmap)
    assert imdb.prepare(data_dir=imdb_data_dir) == imdb_data_dir / imdb_location.PREPARED
