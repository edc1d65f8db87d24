"""Writes a page as a file, or its still picture."""

from pathlib import Path
from typing import Protocol


class Drawn(Protocol):
    """What has a page and a picture."""

    def html(self) -> str:
        """The page."""
        ...

    def svg(self) -> str:
        """The picture."""
        ...


def save(drawn: Drawn, path: str | Path) -> Path:
    """Writes the page, or the picture if the name ends with .svg. Raises ValueError for another ending, and OSError."""
    path = Path(path)
    if path.suffix not in (".html", ".svg"):
        raise ValueError(f"path={str(path)!r} must end with .html or .svg")
    path.write_text(drawn.svg() if path.suffix == ".svg" else drawn.html(), encoding="utf-8")
    return path
