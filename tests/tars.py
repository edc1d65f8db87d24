"""Small archives with the layout of aclImdb_v1.tar.gz, good and hostile, with invented reviews."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

FOLDERS = ("test/neg", "test/pos", "train/neg", "train/pos")
Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"", **fields: object) -> Member:
    """A regular file, or what `fields` (type, linkname, size, ...) make of it."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def folder(name: str) -> Member:
    return file(name, type=tarfile.DIRTYPE)


def reviews(count: int) -> list[Member]:
    """`count` reviews in each folder. Not in sorted order, and numbered such that sorting by number is another order."""
    numbers = [10, 9, 100, *range(101, 98 + count)][:count]
    return [
        file(f"aclImdb/{name}/{n}_{9 if name.endswith('pos') else 2}.txt", f" review {n} of {name} \n".encode())
        for name in FOLDERS
        for n in numbers
    ]


def official(count: int = 3) -> list[Member]:
    """All kinds of members that the official archive holds."""
    folders = [folder("aclImdb"), *(folder(f"aclImdb/{name}") for name in ("train", "test", *FOLDERS, "train/unsup"))]
    others = ("README", "imdb.vocab", "imdbEr.txt", "train/urls_pos.txt", "train/labeledBow.feat", "train/unsup/7_0.txt")
    return [*folders, *(file(f"aclImdb/{name}", b"not a labelled review") for name in others), *reviews(count)]


def tar(members: Iterable[Member]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write(path: Path, members: Iterable[Member]) -> Path:
    path.write_bytes(gzip.compress(tar(members)))
    return path
