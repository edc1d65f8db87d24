"""The prepared dataset: its order, where it comes from, and that a failure leaves nothing behind."""

import dataclasses
import functools
import http.server
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.data import imdb, imdb_archive, imdb_builder, imdb_location
from experiments.errors import DataError
from tests import tars

OFFICIAL_SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return tars.write(tmp_path / "small.tgz", tars.official(3))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No archive, and a proxy that refuses every connection."""
    monkeypatch.delenv("ATTN_IMDB_ARCHIVE", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


@pytest.fixture
def served(small: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The small archive at an address on this machine, which takes the place of the official one."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=small.parent)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.delenv("ATTN_IMDB_ARCHIVE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(imdb_location, "URL", f"http://127.0.0.1:{server.server_address[1]}/small.tgz")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield small
        server.shutdown()


def register(monkeypatch: pytest.MonkeyPatch, sha256: str, size: int) -> None:
    (official,) = (imdb_builder.ImdbLabeled.url_infos or {}).values()
    checksum = dataclasses.replace(official, checksum=sha256, size=size)
    monkeypatch.setattr(imdb_builder.ImdbLabeled, "url_infos", {imdb_location.URL: checksum})


def test_reading_order_is_the_order_of_the_sorted_names(small, tmp_path, capfd, monkeypatch):
    before = set(sys.modules)  # other tests of this process may import TensorFlow
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    folder = imdb_builder.write(data_dir, small, reviews_per_folder=3)
    assert folder == data_dir / imdb_location.PREPARED
    assert [path.name for path in data_dir.iterdir()] == ["imdb_labeled"]
    for split in ("train", "test"):
        expected = [
            (f"review {n} of {split}/{label}".encode(), label == "pos") for label in ("pos", "neg") for n in (100, 10, 9)
        ]
        assert list(imdb_builder.read(folder, split)) == expected
        assert list(imdb_builder.read(folder, split, batch_size=4)) == expected  # the last batch is ragged
    assert (folder / "label.labels.txt").read_text().split() == ["neg", "pos"]
    assert "tensorflow" not in sys.modules.keys() - before
    assert not list((tmp_path / "temporary").iterdir())
    shown = capfd.readouterr()
    bars = [line.split("\r")[-1] for line in shown.err.strip().split("\n")]
    assert shown.out == "" and len(bars) == 2
    assert all(
        f"Preparing IMDB {split}: 100%" in bar and "6/6" in bar for split, bar in zip(("train", "test"), bars, strict=True)
    )


def test_a_prepared_copy_needs_neither_archive_nor_network(small, tmp_path, monkeypatch, offline):
    folder = imdb_builder.write(tmp_path, small, reviews_per_folder=3)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert imdb.prepare() == imdb.prepare(archive=small) == folder
    assert imdb.prepared_sha256(folder) == imdb_archive.archive_sha256(small)


def test_a_prepared_copy_of_another_archive_is_refused(small, tmp_path):
    folder = imdb_builder.write(tmp_path, small, reviews_per_folder=3)
    other = tars.write(tmp_path / "other.tgz", tars.official(4))
    with pytest.raises(DataError, match=rf"^{folder} was prepared from another archive \(sha256 \w{{12}}\) than {other} \("):
        imdb.prepare(archive=other, data_dir=tmp_path)
    with pytest.raises(DataError, match=r"none.tgz cannot be read: No such file or directory$"):
        imdb.prepare(archive=tmp_path / "none.tgz", data_dir=tmp_path)
    assert len(list(imdb_builder.read(folder, "train"))) == 6


def test_neither_archive_nor_network_names_three_ways_out(tmp_path, offline):
    with pytest.raises(DataError) as caught:
        imdb.prepare(data_dir=tmp_path / "data")
    assert str(caught.value).startswith(f"no IMDB under {tmp_path / 'data'}, and {imdb_location.URL} cannot be downloaded (")
    for way_out in ("--archive=PATH", "TFDS_DATA_DIR", "--config.data.name=verdicts"):
        assert way_out in str(caught.value)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_the_variable_names_the_archive(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTN_IMDB_ARCHIVE", str(tmp_path / "none.tgz"))
    with pytest.raises(DataError, match=rf"^IMDB archive {tmp_path / 'none.tgz'} is not a file$"):
        imdb.prepare(data_dir=tmp_path / "data")
    monkeypatch.setenv("ATTN_IMDB_ARCHIVE", str(tars.write(tmp_path / "small.tgz", tars.official(3))))
    with pytest.raises(DataError, match="does not hold 12,500 reviews in each folder: train/neg 3, train/pos 3, test/neg 3"):
        imdb.prepare(data_dir=tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["small.tgz"]


def test_the_official_archive_is_registered():
    official = (imdb_builder.ImdbLabeled.url_infos or {})[imdb_location.URL]
    assert (official.checksum, official.size) == (OFFICIAL_SHA256, 84_125_825)


def test_the_download(served, tmp_path, monkeypatch):
    register(monkeypatch, imdb_archive.archive_sha256(served), served.stat().st_size)
    folder = imdb_builder.write(tmp_path, None, reviews_per_folder=3)
    assert len(list(imdb_builder.read(folder, "train"))) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"small.tgz", "imdb_labeled"}


def test_a_download_with_another_checksum_is_refused(served, tmp_path, monkeypatch):
    register(monkeypatch, OFFICIAL_SHA256, 84_125_825)
    with pytest.raises(DataError, match=r"cannot be downloaded \(Artifact .* has wrong checksum.* --archive=PATH") as caught:
        imdb.prepare(data_dir=tmp_path / "data")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [served]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_halfway_leaves_nothing(small, tmp_path, monkeypatch, failure):
    def fail(*_):
        yield 0, {"text": b"one", "label": 1}
        raise failure

    read = imdb_archive.read_archive(small, reviews_per_folder=3)
    monkeypatch.setattr(imdb_archive, "read_archive", lambda *_: read)
    monkeypatch.setattr(imdb_builder.ImdbLabeled, "_generate_examples", fail)
    with pytest.raises(DataError if isinstance(failure, OSError) else KeyboardInterrupt):
        imdb.prepare(small, tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == [small]


def test_what_existed_before_a_failure_stays(small, tmp_path):
    (tmp_path / "data" / "imdb_labeled").mkdir(parents=True)
    with pytest.raises(DataError, match="does not hold 12,500 reviews"):
        imdb.prepare(small, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["imdb_labeled"]


@pytest.mark.parametrize("content", ["", "[]", json.dumps({})])
def test_a_damaged_copy_is_named(tmp_path, content):
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(DataError, match=rf"^{tmp_path} is damaged \(metadata.json: .*\); remove it to prepare it again$"):
        imdb.prepared_sha256(tmp_path)
