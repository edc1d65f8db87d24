"""Writes a report as one HTML page, which needs no other file and no network."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from experiments.errors import printable
from experiments.report.document import Cell, Document


def html(document: Document) -> str:
    """Returns the page. All its strings are escaped, and control characters are made visible."""
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # What `svg` returns is escaped there.
    environment.filters |= {"lines": _lines, "drawn": Markup}
    return environment.get_template("report.html.jinja").render(document=document)


def _lines(cell: Cell) -> tuple[str, ...]:
    return (cell,) if isinstance(cell, str) else cell


def _visible(value: Any) -> Any:
    return printable(value) if type(value) is str else value
