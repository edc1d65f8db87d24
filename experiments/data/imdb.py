"""Where the prepared IMDB is, and how it gets there. Imports tensorflow_datasets only where something is to be prepared."""

import contextlib
import http.client
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from experiments.data import imdb_archive
from experiments.errors import DataError

ARCHIVE_VARIABLE = "ATTN_IMDB_ARCHIVE"
DATA_DIR_VARIABLE = "TFDS_DATA_DIR"
URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"  # its sha256 is in checksums.tsv, where tfds looks
PREPARED = Path("imdb_labeled", "1.0.0")  # tfds' path for the builder's name and version
CONNECT_SECONDS = 10


def data_directory(data_dir: Path | None = None) -> Path:
    """data_dir, else the variable TFDS_DATA_DIR, else ~/tensorflow_datasets: tfds' own rule, read when it is called."""
    return Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or "~/tensorflow_datasets").expanduser()


def prepare(archive: Path | None = None, data_dir: Path | None = None) -> Path:
    """The folder of the prepared dataset: at once where there is one, else made from the archive or the download.

    Args:
      archive: of aclImdb_v1.tar.gz's layout. A prepared copy of another archive is refused: neither is ever overwritten.
        None takes the variable ATTN_IMDB_ARCHIVE, then the official download, and any copy that is already prepared.
      data_dir: see `data_directory`.

    Raises:
      DataError: one line; what was created before it is removed.
    """
    root = data_directory(data_dir)
    folder = root / PREPARED
    if folder.exists():  # tfds writes to a folder of another name and renames it: this one is complete
        _check_archive(archive, folder)
        return folder
    source = archive or (Path(path) if (path := os.environ.get(ARCHIVE_VARIABLE)) else None)
    if source is None:
        _check_connection(root)
    elif not source.is_file():
        raise DataError(f"IMDB archive {source} is not a file")
    try:
        with no_leftovers(folder.parent):
            _write(root, source)
    except OSError as error:
        if not folder.exists():  # else another process was faster, and tfds could not rename
            raise DataError(f"IMDB cannot be prepared under {root}: {imdb_archive.one_line(error)}") from error
    return folder


def prepared_sha256(folder: Path) -> str:
    """The sha256 of the archive that a prepared dataset was made from."""
    try:
        return str(json.loads((folder / "metadata.json").read_bytes())["archive_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"metadata.json: {imdb_archive.one_line(error)}"
        raise DataError(f"{folder} is damaged ({reason}); remove it, and it is prepared again") from error


@contextlib.contextmanager
def no_leftovers(directory: Path) -> Iterator[None]:
    """Creates a directory; where the block fails, removes it and its parents again: those that are new, and are empty."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _write(root: Path, source: Path | None) -> None:
    from experiments.data import imdb_builder

    try:
        imdb_builder.write(root, source)
    except imdb_builder.DownloadError as error:
        raise _no_archive(root, error) from error


def _check_archive(archive: Path | None, folder: Path) -> None:
    if archive is None:
        return
    given, prepared = imdb_archive.archive_sha256(archive), prepared_sha256(folder)
    if given != prepared:
        raise DataError(
            f"{folder} was prepared from another archive (sha256 {prepared[:12]}) than {archive} ({given[:12]}): "
            f"remove the one, leave out the other, or set {DATA_DIR_VARIABLE} to another folder"
        )


def _check_connection(root: Path) -> None:
    """One request with a time limit, because tfds retries for minutes where there is no network. Proxies are honoured."""
    try:
        # An opener of its own, because urlopen keeps the proxies that it saw first.
        with urllib.request.build_opener().open(urllib.request.Request(URL, method="HEAD"), timeout=CONNECT_SECONDS):
            pass
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_archive(root, error) from error


def _no_archive(root: Path, error: Exception) -> DataError:
    return DataError(
        f"no IMDB under {root}, and {URL} cannot be downloaded ({imdb_archive.one_line(error)}): pass --archive=PATH, "
        f"or set {DATA_DIR_VARIABLE} to a prepared copy, or use the embedded corpus, --config.data.name=verdicts"
    )
