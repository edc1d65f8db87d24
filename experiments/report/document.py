"""What a report says, for HTML and Markdown alike: sections with texts, tables, figures and commands."""

from collections.abc import Sequence
from dataclasses import dataclass, field

UNKNOWN = "–"

Cell = str | tuple[str, ...]  # of several lines, the first is the most important


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      header: The names of the columns.
      rows: The cells.
      words: The columns that hold words and not numbers, beside the first.
      folded: The line behind which it is folded, or "".
      keys: The number of the colour of each row, or none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[int] = ()
    folded: str = ""
    keys: Sequence[int] = ()
    kind: str = "table"


@dataclass(frozen=True)
class Figures:
    """Figures beside each other, as SVG, with one legend: the number of a colour (0 is none) and a text for each line."""

    svgs: Sequence[str]
    legend: Sequence[tuple[int, str]] = ()
    note: str = ""
    kind: str = "figures"


@dataclass(frozen=True)
class Commands:
    """Lines for a shell, each after what it makes."""

    lines: Sequence[tuple[str, str]]
    kind: str = "commands"


Block = Text | Table | Figures | Commands


@dataclass(frozen=True)
class Section:
    """A section with an anchor."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    summary: Sequence[tuple[str, str]]  # a name and a number
    sections: Sequence[Section] = field(default_factory=tuple)
