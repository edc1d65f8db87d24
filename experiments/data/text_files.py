"""Rows of texts and labels from a file: CSV, TSV, JSON Lines or Parquet."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.data import columns, text_lines
from experiments.data.columns import Wanted
from experiments.data.sources import Row, checked_row
from experiments.errors import DataError, UsageError, printable
from experiments.storage import files

Reader = Callable[[Path, Wanted, str | None], Iterator[Row]]
_BATCH = 100  # rows of a Parquet file that are read at once
_BUFFER = 2**16  # bytes of one of its columns

csv.field_size_limit(text_lines.LARGEST)  # of all readers in this process; it is 131,072, and some reviews are longer


def reader_of(path: Path) -> Reader:
    """Returns the function that reads a file, by its ending, before which .gz may stand. Raises UsageError for another one."""
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    if ending not in _READERS or (ending == ".parquet" and path.suffix == ".gz"):
        raise UsageError(f"config.data.path={path} must end with .csv, .tsv, .jsonl (also with .gz behind it) or .parquet")
    return _READERS[ending]


def _read_csv(path: Path, wanted: Wanted, encoding: str | None) -> Iterator[Row]:
    yield from _read_table(path, wanted, encoding, ",")


def _read_tsv(path: Path, wanted: Wanted, encoding: str | None) -> Iterator[Row]:
    yield from _read_table(path, wanted, encoding, "\t")


def _read_table(path: Path, wanted: Wanted, encoding: str | None, delimiter: str) -> Iterator[Row]:
    """Reads a table by RFC 4180, whose first row has the names of the columns. Lines without content are left out."""
    reader = csv.reader(text_lines.lines(path, encoding), delimiter=delimiter, strict=True)
    line = 1
    try:
        names = next((row for row in reader if row), None)
        if names is None:
            raise DataError(f"{path} is empty: its first line must have the names of the columns")
        if len(names) == 1:
            separator = "tabs" if delimiter == "\t" else "commas"
            raise UsageError(f"{path} has one column, {printable(names[0][:80])!r}: {separator} must separate its columns")
        found = columns.find(names, wanted, str(path))
        text, label, width = names.index(found.text), names.index(found.label), len(names)
        line = reader.line_num + 1
        for row in reader:
            if len(row) == width:
                yield checked_row((row[text], row[label]), f"{path}, line {line}")
            elif row:
                plural = "" if len(row) == 1 else "s"
                raise DataError(f"{path}, line {line} has {len(row)} column{plural}, and the first line has {width}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line} is no row of a table: {error}") from None


def _read_json_lines(path: Path, wanted: Wanted, encoding: str | None) -> Iterator[Row]:
    found = None
    for number, line in enumerate(text_lines.lines(path, encoding), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        content = _object(line, where)
        found = found or columns.find(list(content), wanted, where)
        for name in found:
            if name not in content:
                raise DataError(f"{where} has no {name!r}: it has {', '.join(content) or 'nothing'}")
        yield checked_row((content[found.text], content[found.label]), where)
    if found is None:
        raise DataError(f"{path} is empty: each of its lines must be an object with a text and a label")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        return files.parse_object(line.strip(), where)  # so that an error is not at the beginning of the next line
    except ValueError as error:
        raise DataError(str(error)) from None


def _read_parquet(path: Path, wanted: Wanted, encoding: str | None) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    if encoding is not None:
        raise UsageError(f"config.data.encoding={encoding} must be None: {path} is a Parquet file, whose texts are UTF-8")
    number = 0
    try:
        # Without both, all of a row group's column is in memory, which may be the whole file.
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            found = columns.find(file.schema_arrow.names, wanted, str(path))
            names = _class_names(file.schema_arrow.metadata, found.label)
            for batch in file.iter_batches(_BATCH, columns=list(found)):
                for text, label in zip(batch.column(found.text), batch.column(found.label), strict=True):
                    number += 1
                    where = f"{path}, row {number}"
                    yield checked_row((text.as_py(), _named(label.as_py(), names, where)), where)
    except UnicodeDecodeError:
        raise DataError(f"{path}, row {number} is not UTF-8") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not an intact Parquet file, after row {number}: {' '.join(str(error).split())}") from None


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> list[str] | None:
    """Returns the names of the labels in a file that `datasets` of Hugging Face has written, in which labels are integers."""
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return [str(name) for name in feature["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def _named(label: Any, names: list[str] | None, where: str) -> Any:
    if not names or type(label) is not int:
        return label
    if not 0 <= label < len(names):
        raise DataError(f"{where}: the label is {label}, and the file has names for 0 to {len(names) - 1}")
    return names[label]


_READERS: dict[str, Reader] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}
