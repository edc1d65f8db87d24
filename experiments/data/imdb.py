"""Prepares the IMDB reviews as a dataset. Imports tensorflow_datasets only when there is something to prepare."""

import http.client
import json
import os
import sys
import urllib.request
from pathlib import Path

from experiments.data import imdb_archive, imdb_location
from experiments.errors import DataError
from experiments.storage.files import no_leftovers

CONNECT_SECONDS = 10


def prepare(archive: Path | None = None, data_dir: Path | None = None) -> Path:
    """Returns the folder of the prepared dataset, and prepares it first if it is not there.

    Args:
      archive: A file with the layout of aclImdb_v1.tar.gz. None uses a copy that is already prepared, then the archive
        named by the environment variable ATTN_IMDB_ARCHIVE, then the official download. A copy that was prepared from a
        different archive is refused; it is never overwritten.
      data_dir: The data directory; see `imdb_location.data_directory`.

    Returns:
      The folder of the dataset.

    Raises:
      DataError: The archive or the data directory cannot be used. Everything created up to then is removed.
    """
    root = imdb_location.data_directory(data_dir)
    folder = root / imdb_location.PREPARED
    if folder.exists():  # complete: tfds writes to a temporary folder and renames it at the end
        _check_archive(archive, folder)
        return folder
    source = archive or (Path(path) if (path := os.environ.get(imdb_location.ARCHIVE_VARIABLE)) else None)
    if source is None:
        _check_connection(root)
    elif not source.is_file():
        raise DataError(f"IMDB archive {source} is not a file")
    origin = source or f"{imdb_location.URL} (84 MB)"
    print(f"Preparing IMDB from {origin}: half a minute{'' if source else ' and the download'}", file=sys.stderr)
    try:
        with no_leftovers(folder.parent):
            _write(root, source)
    except OSError as error:
        if not folder.exists():  # otherwise another process was faster, and tfds could not rename its folder
            raise DataError(f"IMDB cannot be prepared under {root}: {imdb_archive.one_line(error)}") from error
    return folder


def prepared_sha256(folder: Path) -> str:
    """Returns the SHA-256 of the archive that a prepared dataset was made from."""
    try:
        return str(json.loads((folder / "metadata.json").read_bytes())["archive_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"metadata.json: {imdb_archive.one_line(error)}"
        raise DataError(f"{folder} is damaged ({reason}); remove it to prepare it again") from error


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
            f"remove the one, leave out the other, or set {imdb_location.DATA_DIR_VARIABLE} to another folder"
        )


def _check_connection(root: Path) -> None:
    """Sends one request with a time limit, because without a network tfds retries for minutes. Honours proxies."""
    try:
        # A new opener, because urlopen keeps the proxies of its first call.
        with urllib.request.build_opener().open(
            urllib.request.Request(imdb_location.URL, method="HEAD"), timeout=CONNECT_SECONDS
        ):
            pass
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_archive(root, error) from error


def _no_archive(root: Path, error: Exception) -> DataError:
    reason = imdb_archive.one_line(error)
    return DataError(
        f"no IMDB under {root}, and {imdb_location.URL} cannot be downloaded ({reason}): pass --archive=PATH, or set "
        f"{imdb_location.DATA_DIR_VARIABLE} to a prepared copy, or use the embedded corpus, --config.data.name=verdicts"
    )
