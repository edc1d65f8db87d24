"""Draws a confusion matrix as inline SVG, in the colours of the page."""

import itertools
from collections.abc import Sequence
from html import escape

import numpy as np

from experiments.errors import printable

_SIZE = 420  # of the picture, as the charts have it
_TOP, _NAMES, _RIGHT = 30, 110, 6  # above the cells; left of and below them, for the names of the labels
_SHOWN = 15  # characters of a name
_WRITTEN = 10  # labels up to which the cells have numbers
_OPACITY = 0.5  # of a share of 1, so that the numbers have enough contrast in the light and the dark page


def heat_map(anchor: str, labels: Sequence[str], counts: np.ndarray) -> str:
    """Returns the picture of the share of each label (rows) that was predicted as each label (columns).

    Args:
      anchor: Its id in the page, which has the number of the colour of its group at the end.
      labels: The names of the labels.
      counts: Integers `[C, C]`.
    """
    colour, size = anchor.rpartition("-")[2], len(labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = (_SIZE - _NAMES - _RIGHT) / size
    height = _TOP + side * size + _NAMES
    title = f"{colour}: label (rows), predicted label (columns)"
    worst = [f"{label}: {share:.0%} right" for label, share in zip(labels, np.diag(shares), strict=True)]
    drawn = [
        f'<svg viewBox="0 0 {_SIZE} {height:.0f}" role="img" aria-labelledby="{anchor}-t {anchor}-d">',
        f'<title id="{anchor}-t">{title}</title><desc id="{anchor}-d">{_text(", ".join(worst))}</desc>',
        f'<text class="name" x="{_NAMES}" y="16">{title}</text>',
    ]
    for i, label in enumerate(labels):
        name, middle = _text(label if len(label) <= _SHOWN else label[: _SHOWN - 1] + "…"), side * (i + 0.5)
        drawn.append(f'<text class="tick" x="{_NAMES - 6}" y="{_TOP + middle + 4:.1f}" text-anchor="end">{name}</text>')
        at = f"{_NAMES + middle + 4:.1f} {_TOP + side * size + 8:.1f}"
        drawn.append(f'<text class="tick" transform="translate({at}) rotate(-90)" text-anchor="end">{name}</text>')
    for row, column in itertools.product(range(size), repeat=2):
        share = shares[row, column]
        x, y = _NAMES + column * side, _TOP + row * side
        said = f"{_text(labels[row])} as {_text(labels[column])}: {counts[row, column]}"
        place = f'x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}"'
        drawn.append(f'<rect class="cell c{colour}" {place} fill-opacity="{_OPACITY * share:.3f}"><title>{said}</title></rect>')
        if size <= _WRITTEN:
            place = f'x="{x + side / 2:.1f}" y="{y + side / 2 + 4:.1f}" text-anchor="middle"'
            drawn.append(f'<text class="name" {place}>{100 * share:.0f}</text>')
    return "".join([*drawn, "</svg>"])


def _text(text: str) -> str:
    return escape(printable(text))
