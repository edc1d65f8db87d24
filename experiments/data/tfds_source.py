"""The source of `config.data.name=tfds:NAME`: a dataset that tensorflow_datasets has prepared, read without TensorFlow."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.data import columns
from experiments.data.checksum import Hashed
from experiments.data.columns import Wanted
from experiments.data.sources import SPLITS, Row, Source, checked_row
from experiments.errors import DataError, UsageError, first_line

_BATCH = 1_000  # examples that are read at once


def source(data: Any, data_dir: Path, sums: Path) -> Source:
    """Returns the source of a dataset in `data_dir`. NAME may have a config and a version, as in name/config:1.0.0.

    The hashes of its files are kept in the folder `sums`.

    Raises:
      UsageError: The dataset has no such features, or no split "train".
      DataError: It is not there, damaged, or stored in files that only TensorFlow reads.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    name = data.name.partition(":")[2]
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=data_dir)
    except Exception as error:  # tfds and protobuf raise errors of their own
        raise DataError(f"config.data.name={data.name} is not prepared in {data_dir}: {first_line(error)}") from None
    info: Any = builder.info  # its attributes have no types that could be told apart
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"config.data.name={data.name} is stored as {info.file_format and info.file_format.value}, which needs TensorFlow: "
            "prepare it with file_format='array_record'"
        )
    if "train" not in info.splits:
        raise UsageError(f"config.data.name={data.name} must have a split train: it has {', '.join(info.splits) or 'none'}")
    found = columns.find(sorted(info.features or ()), Wanted(data.text, data.label), data.name)
    label = info.features[found.label]
    names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) and label.names else None
    splits = {split: functools.partial(_rows, builder, split, found, names) for split in SPLITS if split in info.splits}
    stored = {path.name: path for path in sorted(Path(builder.data_dir).iterdir()) if path.is_file()}
    hashed = Hashed(stored, sums)
    return Source(data.name, splits, hashed.content, names, hashed.keep)


def _rows(builder: Any, split: str, found: columns.Found, names: tuple[str, ...] | None) -> Iterator[Row]:
    number = 0
    try:
        examples = builder.as_data_source(split)
        for start in range(0, len(examples), _BATCH):
            for example in examples.__getitems__(range(start, min(start + _BATCH, len(examples)))):
                number += 1
                where = f"{builder.info.full_name}, {split}, row {number}"
                yield checked_row((_text(example[found.text], where), _label(example[found.label], names, where)), where)
    except DataError:
        raise
    except Exception as error:  # tfds, protobuf and array_record raise errors of their own
        where = f"{builder.data_dir}, {split}, after row {number}"
        raise DataError(f"{where}: the dataset is damaged: {first_line(error)}") from error


def _text(value: Any, where: str) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise DataError(f"{where}: the text is not UTF-8") from None


def _label(value: Any, names: tuple[str, ...] | None, where: str) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if names is None:
        return _text(value, where)
    if not 0 <= value < len(names):
        raise DataError(f"{where}: the label is {value}, and the dataset has names for 0 to {len(names) - 1}")
    return names[value]
