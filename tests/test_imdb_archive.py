"""What is read from an archive, and the one line with which each hostile or broken one is refused."""

import collections
import gzip
import hashlib
import tarfile
from pathlib import Path

import pytest

from experiments.data import imdb, imdb_archive
from experiments.errors import DataError
from tests import tars


def test_reviews_in_order_and_nothing_else(tmp_path):
    path = tars.write(tmp_path / "small.tgz", tars.official(3))
    archive = imdb_archive.read_archive(path, reviews_per_folder=3)
    assert archive.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for split in ("train", "test"):
        expected = [
            (f"aclImdb/{split}/{label}/{number}_{rating}.txt", f"review {number} of {split}/{label}".encode(), value)
            for label, rating, value in (("pos", 9, 1), ("neg", 2, 0))
            for number in ("100", "10", "9")  # "100_9.txt" < "10_9.txt", as strings
        ]
        assert archive.splits[split] == expected


def truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def flipped(path: Path) -> None:
    """One bit of a stored (not compressed) review: without gzip's checksum nobody would notice."""
    content = bytearray(gzip.compress(tars.tar(tars.reviews(3)), compresslevel=0))
    content[content.index(b"review 10 of train/pos")] ^= 1
    path.write_bytes(content)


BROKEN = {
    "is truncated: ": lambda path: truncated(path, 0.7),
    "is not an intact gzipped tar: CRC check failed": flipped,
    "is not an intact gzipped tar: Not a gzipped file": lambda path: path.write_bytes(b"PK\3\4 a zip"),
    "is not an intact gzipped tar: invalid header": lambda path: path.write_bytes(gzip.compress(b"text" * 200)),
    "is not an intact gzipped tar: empty file": lambda path: path.write_bytes(b""),
    "cannot be read: Is a directory": lambda path: (path.unlink(), path.mkdir()),
    "cannot be read: No such file or directory": Path.unlink,
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_archive(tmp_path, rule):
    path = tars.write(tmp_path / "broken.tgz", tars.reviews(3))
    BROKEN[rule](path)
    with pytest.raises(DataError) as caught:
        imdb_archive.read_archive(path, reviews_per_folder=3)
    assert str(caught.value).startswith(f"IMDB archive {path} {rule}")
    assert "\n" not in str(caught.value)


REVIEW = "aclImdb/train/pos/1_9.txt"
HOSTILE = {
    "member '/etc/passwd' has an absolute name": [tars.file("/etc/passwd")],
    "member 'aclImdb/../../evil.txt' has '..' in its name": [tars.file("aclImdb/../../evil.txt")],
    "member 'other/README' is not under aclImdb/": [tars.file("other/README")],
    f"member '{REVIEW}' is a link": [tars.file(REVIEW, type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "member 'aclImdb/README' is a link": [tars.file("aclImdb/README", type=tarfile.LNKTYPE, linkname=REVIEW)],
    "member 'aclImdb/a' is neither a file nor a directory": [tars.file("aclImdb/a", type=tarfile.FIFOTYPE)],
    "member 'aclImdb/b' is neither a file nor a directory": [tars.file("aclImdb/b", type=tarfile.CHRTYPE)],
    "member 'aclImdb/c' is neither a file nor a directory": [tars.file("aclImdb/c", type=tarfile.BLKTYPE)],
    f"member '{REVIEW}' occurs twice": [tars.file(REVIEW, b"one"), tars.file(REVIEW, b"two")],
    f"member '{REVIEW}' has 1,000,001 bytes, more than 1,000,000": [tars.file(REVIEW, b"x" * 1_000_001)],
    "member 'aclImdb/\\n\\x1b[2J/..' has '..' in its name": [tars.file("aclImdb/\n\x1b[2J/..")],
}


@pytest.mark.parametrize("rule", HOSTILE)
def test_a_hostile_member(tmp_path, rule):
    path = tars.write(tmp_path / "hostile.tgz", [*tars.official(), *HOSTILE[rule]])
    with pytest.raises(DataError) as caught:
        imdb.prepare(path, tmp_path / "new" / "data")
    assert str(caught.value) == f"IMDB archive {path}: {rule}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("header", ["pax", "size"])
def test_headers_that_keep_tarfile_busy(tmp_path, header):
    """5,000 nested pax headers exhaust the stack; a claim of 2**60 bytes lets tarfile read at the end of the file for years."""
    if header == "pax":
        content = tars.tar([tars.file("x", b"9 a=b c\n\n", type=tarfile.XHDTYPE)] * 5_000)
    else:
        content = tars.file("aclImdb/README", size=2**60)[0].tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "busy.tgz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"^IMDB archive .*busy.tgz (is truncated|is not an intact gzipped tar): "):
        imdb_archive.read_archive(path)


def test_a_file_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb_archive._CappedGzip, "left", 50_000)
    path = tars.write(tmp_path / "bomb.tgz", [*tars.official(), tars.file("aclImdb/README", bytes(50_000))])
    with pytest.raises(DataError, match=r"bomb.tgz unpacks to more than 1,073,741,824 bytes, the largest size that is read$"):
        imdb_archive.read_archive(path, reviews_per_folder=3)


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(imdb_archive, "MOST_MEMBERS", 20)
    path = tars.write(tmp_path / "many.tgz", tars.official())
    with pytest.raises(DataError, match=r"many.tgz has more than 20 members, the largest number that is read$"):
        imdb_archive.read_archive(path, reviews_per_folder=3)


@pytest.mark.parametrize(("changed", "count"), [("missing", 2), ("extra", 4)])
def test_a_folder_with_another_number_of_reviews(tmp_path, changed, count):
    members = [member for member in tars.official() if member[0].name != "aclImdb/test/neg/9_2.txt"]
    if changed == "extra":
        members = [*tars.official(), tars.file("aclImdb/test/neg/5_2.txt")]
    path = tars.write(tmp_path / "small.tgz", members)
    found = f"3 reviews in each folder: train/neg 3, train/pos 3, test/neg {count}, test/pos 3$"
    with pytest.raises(DataError, match=rf"small.tgz does not hold {found}"):
        imdb_archive.read_archive(path, reviews_per_folder=3)


def test_the_real_archive(real_content):
    splits = real_content.splits
    folders = collections.Counter(review.name.rsplit("/", 1)[0] for split in splits.values() for review in split)
    assert folders == {f"aclImdb/{split}/{label}": 12_500 for split in ("train", "test") for label in ("pos", "neg")}
    assert [sum(len(review.text) for review in splits[split]) for split in ("train", "test")] == [33_132_823, 32_350_685]
