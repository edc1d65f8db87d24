"""Reads the reviews of an IMDB archive as a stream, without extracting files, and checks them completely."""

import dataclasses
import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from experiments.data.checksum import file_sha256
from experiments.errors import DataError

SPLITS = ("train", "test")
LABELS = ("neg", "pos")  # the index is the label
REVIEWS_PER_FOLDER = 12_500

# The longest official review has 13,704 bytes; the official archive unpacks to some 0.4 GB in 100,000 members.
LARGEST_REVIEW = 1_000_000
LARGEST_TAR = 2**30
MOST_MEMBERS = 250_000

_REVIEW = re.compile(r"aclImdb/((?:train|test)/(?:pos|neg))/([0-9]+_[0-9]+\.txt)")


class Review(NamedTuple):
    """A labelled review.

    Attributes:
      name: The name of the member in the archive.
      text: Its bytes, without white space at both ends.
      label: The index of its label in LABELS.
    """

    name: str
    text: bytes
    label: int


@dataclasses.dataclass(frozen=True)
class Archive:
    """The content of an archive.

    Attributes:
      sha256: The SHA-256 of the archive file.
      splits: The reviews by split, in the order of Keras: positive before negative, each sorted by file name as strings.
    """

    sha256: str
    splits: dict[str, list[Review]]


def read_archive(path: Path, reviews_per_folder: int = REVIEWS_PER_FOLDER) -> Archive:
    """Reads all labelled reviews of an archive with the layout of aclImdb_v1.tar.gz. Writes nothing.

    Args:
      path: The archive.
      reviews_per_folder: How many reviews each of the four folders must hold.

    Raises:
      DataError: The archive is damaged, unsafe or incomplete. Names the archive, the member or value, and the rule.
    """
    try:
        sha256 = file_sha256(path)
        with path.open("rb") as file:
            folders = _read_folders(path, file)
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError, LookupError, RecursionError) as error:
        # tarfile raises the last three for malicious headers.
        kind = "is truncated" if isinstance(error, EOFError) else "is not an intact gzipped tar"
        raise DataError(f"IMDB archive {path} {kind}: {one_line(error)}") from error
    except OSError as error:
        raise DataError(f"IMDB archive {path} cannot be read: {error.strerror or one_line(error)}") from error
    _check_counts(path, folders, reviews_per_folder)
    return Archive(sha256, {split: list(_ordered(folders, split)) for split in SPLITS})


def archive_sha256(path: Path) -> str:
    """Returns the SHA-256 of an archive file. Raises DataError if it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"IMDB archive {path} cannot be read: {error.strerror or one_line(error)}") from error


def _read_folders(path: Path, file: BinaryIO) -> dict[str, dict[str, bytes]]:
    """Returns the texts of the four folders, as {"train/pos": {"0_9.txt": text}}.

    Uses gzip and the mode `r|` instead of `r|gz`, because tarfile's own gzip reader does not verify the checksum at the end.
    """
    folders: dict[str, dict[str, bytes]] = {f"{split}/{label}": {} for split in SPLITS for label in LABELS}
    with _CappedGzip(fileobj=file, mode="rb") as unzipped:
        with tarfile.open(fileobj=unzipped, mode="r|") as tar:
            for number, member in enumerate(tar, start=1):
                if number > MOST_MEMBERS:
                    raise DataError(
                        f"IMDB archive {path} has more than {MOST_MEMBERS:,} members, the largest number that is read"
                    )
                _check_member(path, member)
                if (match := _REVIEW.fullmatch(member.name)) and member.isreg():
                    folder, name = folders[match[1]], match[2]
                    if name in folder:
                        raise DataError(f"IMDB archive {path}: member {_shown(member)} occurs twice")
                    folder[name] = _read_review(path, tar, member)
        while unzipped.read(2**20):  # reads past the end of the tar, up to the checksum of gzip
            pass
    return folders


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    parts = PurePosixPath(member.name).parts
    broken: dict[str, bool] = {
        "has an absolute name": member.name.startswith("/"),
        "has '..' in its name": ".." in parts,
        "is not under aclImdb/": parts[:1] != ("aclImdb",),
        "is a link": member.issym() or member.islnk(),
        "is neither a file nor a directory": not (member.isdir() or member.isreg()) or member.issparse(),
    }
    for rule, is_broken in broken.items():
        if is_broken:
            raise DataError(f"IMDB archive {path}: member {_shown(member)} {rule}")


def _read_review(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > LARGEST_REVIEW:
        raise DataError(f"IMDB archive {path}: member {_shown(member)} has {member.size:,} bytes, more than {LARGEST_REVIEW:,}")
    content = tar.extractfile(member)
    assert content is not None, "a regular file has content"
    # Stripped as in tensorflow_datasets. This changes no token, and no review of the official archive.
    return content.read().strip()


def _check_counts(path: Path, folders: dict[str, dict[str, bytes]], expected: int) -> None:
    if any(len(folder) != expected for folder in folders.values()):
        found = ", ".join(f"{name} {len(folder):,}" for name, folder in folders.items())
        raise DataError(f"IMDB archive {path} does not hold {expected:,} reviews in each folder: {found}")


def _ordered(folders: dict[str, dict[str, bytes]], split: str) -> Iterator[Review]:
    for label in ("pos", "neg"):
        for name, text in sorted(folders[f"{split}/{label}"].items()):
            yield Review(f"aclImdb/{split}/{label}/{name}", text, LABELS.index(label))


def _shown(member: tarfile.TarInfo) -> str:
    return ascii(member.name[:120])  # ascii, because a name may contain newlines, escape sequences and lone surrogates


def one_line(error: BaseException) -> str:
    """Returns the message of an exception without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


class _CappedGzip(gzip.GzipFile):
    """A gzip file that refuses to unpack more than LARGEST_TAR bytes, because a small file can unpack to a very large tar.

    It also refuses repeated reads at its end: if a header claims 2**60 bytes, for example, tarfile would read there forever.
    """

    left, ends_left = LARGEST_TAR, 8

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self.left -= len(block)
        self.ends_left -= not block
        if self.left < 0:
            raise DataError(
                f"IMDB archive {self.name} unpacks to more than {LARGEST_TAR:,} bytes, the largest size that is read"
            )
        if self.ends_left < 0:
            raise EOFError("the tar ends inside a member")
        return block
