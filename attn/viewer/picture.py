"""The still picture: a map of a layer's weights as SVG, for readers without JavaScript and for files."""

from html import escape

import numpy as np

from attn.viewer.content import Content
from attn.viewer.facts import visible

_SIDE, _LEVELS, _LINE = 320, 12, 22
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
    """An SVG file: the tokens, shaded by what they receive, and the map below."""
    received = shares(page)
    drawn, x, y = [], 8, 8
    for token, share in zip(page.facts.tokens, received, strict=True):
        text = visible(token)
        width = 8 * len(text) + 10
        if x > 8 and x + width > 720:
            x, y = 8, y + _LINE
        drawn.append(f'<rect x="{x}" y="{y}" width="{width - 2}" height="{_LINE - 3}" fill-opacity="{0.5 * share:.2f}"/>')
        fitted = f'textLength="{width - 10}" lengthAdjust="spacingAndGlyphs"'
        drawn.append(f'<text x="{x + 4}" y="{y + 14}" {fitted}>{escape(text)}</text>')
        x += width
    top = y + _LINE + 10
    inner = heat(page).replace("<svg ", f'<svg x="8" y="{top}" ', 1)
    size = f'viewBox="0 0 736 {top + _SIDE + 8}" width="736" height="{top + _SIDE + 8}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><title>{escape(visible(page.facts.title))}</title><style>{_STYLE}'
        f'</style><rect class="b" width="100%" height="100%"/>{"".join(drawn)}{inner}</svg>\n'
    )


def shares(page: Content) -> np.ndarray:
    """What each token receives in the layer and head that are shown first, over the most, `[n]`."""
    received = page.layers[page.facts.layer].received
    found = received.mean(0) if page.facts.head is None else received[page.facts.head]
    real = found[: page.facts.plan.real]  # many tokens of padding together would leave the others pale
    return np.minimum(found / (real.max() or 1.0), 1)
