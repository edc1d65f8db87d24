"""Figures as files that tell what was drawn in them."""

import hashlib
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

_DRAWN = "Description"  # the name of the entry in the metadata


def save(figure: Figure, path: Path) -> None:
    """Writes a figure to `path` with the endings .png and .svg. The same rows give the same bytes, with the same matplotlib.

    The metadata of both files has the digest of `drawn`.
    """
    metadata = {_DRAWN: drawn(figure)}
    with matplotlib.rc_context({"svg.hashsalt": "attn"}):  # otherwise the ids in it are random
        figure.savefig(path.with_suffix(".png"), dpi=110, metadata={"Software": None} | metadata)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None} | metadata)


def drawn(figure: Figure) -> str:
    """Returns the SHA-256 of the lines, bands and texts in a figure, with nine digits of each number.

    It does not depend on fonts, on the layout or on the version of matplotlib, as the bytes of a picture do.
    """
    parts: list[str] = []
    for axes in figure.axes:
        parts += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        for line in axes.get_lines():
            parts += [str(line.get_label()), _text(line.get_xydata())]
        for band in axes.collections:
            parts += [_text(np.unique(path.vertices, axis=0)) for path in band.get_paths()]
        parts += [text.get_text() for text in axes.texts]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def drawn_in(png: Path) -> str | None:
    """Returns the digest in the metadata of a PNG file, or None if it has none."""
    with Image.open(png) as image:
        return image.info.get(_DRAWN)


def _text(numbers: object) -> str:
    return " ".join(f"{number + 0.0:.9g}" for number in np.asarray(numbers, np.float64).ravel())
