"""The still picture: a map of a layer's weights as SVG, for readers without JavaScript and for files."""

import unicodedata
from html import escape

import numpy as np

from attn.viewer.content import Content
from attn.viewer.facts import visible
from attn.viewer.summary import COARSE

_SIDE, _LEVELS, _LINE, _NAME = 320, 12, 22, 14
_NARROW, _WIDE = frozenset("fijlrtI.,:;!'|()[] "), frozenset("mwMW@%")
_STYLE = "text{font:13px sans-serif;fill:#1d2026}rect,path{fill:#2f6db5}.b{fill:#fff}"


def heat(page: Content) -> str:
    """The weights of the layer and head that are shown first, queries down and keys across, at most 32 × 32 cells."""
    layer = page.layers[page.facts.layer].coarse
    cells = layer.mean(0) if page.facts.head is None else layer[page.facts.head]
    count, top = len(cells), cells[:, : -1 if page.facts.plan.padding and len(cells) > 1 else None].max() or 1.0
    levels = np.rint(_LEVELS * np.minimum(cells / top, 1)).astype(int)
    paths = []
    for level in range(1, _LEVELS + 1):
        squares = "".join(f"M{key} {query}h1v1h-1z" for query, key in np.argwhere(levels == level))
        if squares:
            paths.append(f'<path fill-opacity="{level / _LEVELS:.2f}" d="{squares}"/>')
    shown = f"layer {page.facts.layer}, {'mean of the heads' if page.facts.head is None else f'head {page.facts.head}'}"
    label = f"Attention weights of {shown}: queries from top to bottom, keys from left to right, the darkest is {top:.3f}"
    return (
        f'<svg class="still" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {count} {count}" width="{_SIDE}" height="{_SIDE}" '
        f'role="img" aria-label="{label}">{"".join(paths)}</svg>'
    )


def file(page: Content) -> str:
    """An SVG file: the tokens, shaded by what they receive, and the map below, with the tokens beside it if they are few."""
    received = shares(page)
    drawn, x, y = [], 8, 8
    for token, share in zip(page.facts.tokens, received, strict=True):
        text = visible(token)
        width = _width(text) + 10
        if x > 8 and x + width > 720:
            x, y = 8, y + _LINE
        drawn.append(f'<rect x="{x}" y="{y}" width="{width - 2}" height="{_LINE - 3}" fill-opacity="{0.5 * share:.2f}"/>')
        drawn.append(f'<text x="{x + width / 2 - 1:g}" y="{y + 14}" text-anchor="middle">{escape(text)}</text>')
        x += width
    named = [visible(token)[:_NAME] for token in page.facts.tokens] if len(received) <= COARSE else []
    longest = max(map(_width, named), default=0)
    left, top = 8 + longest, y + _LINE + 10 + longest
    drawn += _names(named, left, top)
    inner = heat(page).replace("<svg ", f'<svg x="{left}" y="{top}" ', 1)
    size = f'viewBox="0 0 736 {top + _SIDE + 8}" width="736" height="{top + _SIDE + 8}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><title>{escape(visible(page.facts.title))}</title><style>{_STYLE}'
        f'</style><rect class="b" width="100%" height="100%"/>{"".join(drawn)}{inner}</svg>\n'
    )


def _names(names: list[str], left: int, top: int) -> list[str]:
    """The names of the queries beside the map, and those of the keys above it, upright."""
    drawn = []
    for index, name in enumerate(map(escape, names)):
        middle = (index + 0.5) * _SIDE / len(names) + 4
        drawn.append(f'<text x="{left - 5}" y="{top + middle:.1f}" text-anchor="end">{name}</text>')
        drawn.append(f'<text transform="translate({left + middle:.1f} {top - 5}) rotate(-90)">{name}</text>')
    return drawn


def _width(text: str) -> int:
    """About how many pixels a text takes, in a sans-serif face of 13 pixels."""
    return sum(14 if unicodedata.east_asian_width(c) in "WF" else 5 if c in _NARROW else 11 if c in _WIDE else 8 for c in text)


def shares(page: Content) -> np.ndarray:
    """What each token receives in the layer and head that are shown first, over the most, `[n]`."""
    received = page.layers[page.facts.layer].received
    found = received.mean(0) if page.facts.head is None else received[page.facts.head]
    real = found[: page.facts.plan.real]  # many tokens of padding together would leave the others pale
    return np.minimum(found / (real.max() or 1.0), 1)
