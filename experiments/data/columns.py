"""Which columns of a table are the texts and the labels."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.errors import UsageError, printable

TEXT_NAMES = ("text", "review", "sentence", "content", "comment", "tweet", "message", "document", "body")
LABEL_NAMES = ("label", "sentiment", "class", "target", "category", "labels", "stars", "rating")
_SHOWN = 12  # names in a message


class Wanted(NamedTuple):
    """The names of the columns, `config.data.text` and `config.data.label`; None: the only one with a usual name."""

    text: str | None
    label: str | None


class Found(NamedTuple):
    """The names of the columns of a table that are read."""

    text: str
    label: str


def find(names: Sequence[str], wanted: Wanted, where: str) -> Found:
    """Finds the columns.

    Args:
      names: The names of all columns.
      wanted: What the config says.
      where: What an error calls the table.

    Raises:
      UsageError: A column is missing, or the usual names leave it open which one is meant. Names the columns that are there.
    """
    text = _one(names, wanted.text, TEXT_NAMES, "text", where)
    label = _one(names, wanted.label, LABEL_NAMES, "label", where)
    if text == label:
        raise UsageError(f"config.data.text={text} and config.data.label={label} must be two columns of {where}")
    return Found(text, label)


def _one(names: Sequence[str], wanted: str | None, usual: Sequence[str], field: str, where: str) -> str:
    there = ", ".join(map(printable, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "") or "none"
    if wanted is not None:
        if list(names).count(wanted) != 1:
            many = "two columns have that name" if wanted in names else f"its columns are {there}"
            raise UsageError(f"config.data.{field}={wanted} must be a column of {where}: {many}")
        return wanted
    found = [name for name in names if name.strip().lower() in usual]
    if len(found) != 1:
        which = f"{len(found)} columns" if found else "none"
        raise UsageError(
            f"config.data.{field}=None must be the name of a column of {where}: {which} of {there} "
            f"{'have' if len(found) > 1 else 'has'} a usual name ({', '.join(usual[:4])}, …)"
        )
    return found[0]
