"""Where the IMDB archive comes from, and where the prepared dataset is kept."""

import os
from pathlib import Path

ARCHIVE_VARIABLE = "ATTN_IMDB_ARCHIVE"  # names a local archive
DATA_DIR_VARIABLE = "TFDS_DATA_DIR"
URL = "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"  # checksums.tsv holds its SHA-256 for tfds
PREPARED = Path("imdb_labeled", "1.0.0")  # the builder's name and version, as tfds lays them out


def data_directory(data_dir: Path | None = None) -> Path:
    """Returns the data directory by tfds' own rule, evaluated at each call.

    Args:
      data_dir: The directory, or None for the environment variable TFDS_DATA_DIR, then ~/tensorflow_datasets.
    """
    return Path(data_dir or os.environ.get(DATA_DIR_VARIABLE) or "~/tensorflow_datasets").expanduser()
