"""What a corpus of texts is read from, and sources of the user's own."""

import dataclasses
import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from experiments.data import text_lines
from experiments.errors import DataError, UsageError, first_line

SPLITS = ("train", "validation", "test")
Row = tuple[bytes, str]  # a text in UTF-8, and its label
Function = Callable[[Any], Mapping[str, Iterable[tuple[str, Any]]]]


@dataclasses.dataclass(frozen=True)
class Source:
    """Labelled texts.

    Attributes:
      name: What errors call it.
      splits: For "train", and "validation" and "test" where they are given, what reads the rows again from the start.
      content: Returns the SHA-256 of the content as it is at the call.
      classes: The names of the labels in order; None: those that occur in "train", in the order of their numbers if all of them
        are integers, else in alphabetical order.
      keep: Is called when the content has been prepared, so that `content` may keep what makes its next call faster.
    """

    name: str
    splits: Mapping[str, Callable[[], Iterator[Row]]]
    content: Callable[[], str]
    classes: tuple[str, ...] | None = None
    keep: Callable[[], None] = lambda: None


_REGISTERED: dict[tuple[str, str], Function] = {}


def register(name: str) -> Callable[[Function], Function]:
    """Registers a function as a source of labelled texts: `--config.data.name=MODULE:NAME`, where MODULE has the function.

    The function gets `config.data`, and returns the rows of "train", and of "validation" and "test" where there are such: pairs
    of a text and a label, which is a string, an integer or a bool. They are read several times, so each split is a list or
    another object that can be iterated again, and not an iterator.

    Example:
      @register("reviews")
      def reviews(data):
          return {"train": [("a dull film", "neg"), ("a lovely film", "pos"), …]}
    """

    def add(function: Function) -> Function:
        _REGISTERED[function.__module__, name] = function
        return function

    return add


def registered(data: Any) -> Source:
    """Returns the source that `config.data.name` names as MODULE:NAME.

    Raises:
      UsageError: The module cannot be imported, has registered no such source, or the source returns something else.
    """
    module, _, name = data.name.partition(":")
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"config.data.name={data.name}: {module} cannot be imported: {first_line(error)}") from None
    if (module, name) not in _REGISTERED:
        known = ", ".join(f"{where}:{what}" for where, what in _REGISTERED if where == module) or "none"
        raise UsageError(f"config.data.name={data.name}: {module} has not registered {name!r}; its sources are {known}")
    return from_rows(data.name, _REGISTERED[module, name](data))


def from_rows(name: str, splits: Mapping[str, Iterable[tuple[str, Any]]]) -> Source:
    """Returns the source of rows that a function has returned. Raises UsageError if they are not what `register` asks for."""
    if not isinstance(splits, Mapping) or "train" not in splits or not set(splits) <= set(SPLITS):
        raise UsageError(f"{name} must return a dict with the rows of train, and of validation and test where there are such")
    for split, rows in splits.items():
        if iter(rows) is rows:
            raise UsageError(
                f"{name}: the rows of {split} are an iterator, which can be read once only: return a list, for example"
            )
    read = {split: _reader(f"{name}, {split}", rows) for split, rows in splits.items()}
    return Source(name, read, lambda: _digest(read))


def _reader(where: str, rows: Iterable[tuple[str, Any]]) -> Callable[[], Iterator[Row]]:
    def read() -> Iterator[Row]:
        for number, row in enumerate(rows, start=1):
            yield checked_row(row, f"{where}, row {number}")

    return read


def checked_row(row: Any, where: str) -> Row:
    """Returns a row in the form that everything else reads.

    Args:
      row: A text and a label, of whatever types.
      where: What an error calls the row.

    Raises:
      DataError: The text is empty, too long or no text, or the label is missing or cannot be a name.
    """
    try:
        text, label = row
    except (TypeError, ValueError):
        raise DataError(f"{where} must be a pair of a text and a label") from None
    if text is None or (isinstance(text, str) and not text.strip()):
        raise DataError(f"{where}: the text is empty")
    if not isinstance(text, str):
        raise DataError(f"{where}: the text is {type(text).__name__}, not a text")
    if len(text) > text_lines.LARGEST:
        raise DataError(f"{where}: the text has more than {text_lines.LARGEST:,} characters, the most that are read")
    if label is None or label != label or (isinstance(label, str) and not label.strip()):  # NaN is not itself
        raise DataError(f"{where}: the label is empty")
    if not isinstance(label, str | int | float):
        raise DataError(f"{where}: the label is {type(label).__name__}, not a text or a number")
    try:
        return text.encode(), str(label).strip()
    except UnicodeEncodeError:
        raise DataError(f"{where}: the text has half of a surrogate pair, which no UTF-8 text has") from None


def _digest(splits: Mapping[str, Callable[[], Iterator[Row]]]) -> str:
    digest = hashlib.sha256()
    for split, read in splits.items():
        digest.update(f"{split}:".encode())
        for text, label in read():
            digest.update(f"{len(text)},{len(label)}:".encode() + text + label.encode())
    return digest.hexdigest()
