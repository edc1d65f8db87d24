"""One map of an alignment as SVG: target tokens from top to bottom, source tokens from left to right."""

import unicodedata
from collections.abc import Sequence
from html import escape

import numpy as np

from attn.viewer.facts import visible

STYLE = (
    ".aligned{display:block}"
    ".aligned text{font:13px system-ui,'Noto Sans','Noto Sans CJK SC','PingFang SC','Microsoft YaHei',sans-serif;"
    "fill:var(--ink)}"
    ".aligned rect{fill:var(--heat)}.aligned path{fill:none;stroke:var(--rule)}"
)
_ALONE = "svg{--ink:#1d2026;--heat:#1f5fae;--rule:#d9dce3;background:#fff}"
_CELL, _WIDEST = 26, 56  # pixels: a cell's height and smallest width, and its largest width
_EM, _GAP = 8, 10  # pixels: the width of a narrow character, and what is between labels and cells
_LONGEST = 24  # columns of a label
_LEAST = 1 / 255  # a weight that is drawn: a screen has no lighter shade
_NAMED = 4_096  # cells up to which each one names its weight when it is pointed at


def picture(source: Sequence[str], target: Sequence[str], weights: np.ndarray, title: str, alone: bool = False) -> str:
    """Draws weights.

    Args:
      source: the tokens of the source, `[S]`. Labels of them that are too wide for a cell stand upright.
      target: the tokens of the target, `[U]`.
      weights: numbers from 0 to 1, `[U, S]`: the opacity of each cell.
      title: what the picture is called.
      alone: whether it is a file of its own; otherwise the page has STYLE.
    """
    across, down = [_label(token) for token in source], [_label(token) for token in target]
    longest = max(map(_width, across))
    upright = longest + _EM > _WIDEST
    cell = _CELL if upright else max(_CELL, longest + _EM)
    left, top = max(map(_width, down)) + _GAP, (longest if upright else 14) + _GAP
    right, bottom = left + cell * len(across), top + _CELL * len(down)
    drawn = []
    for index, label in enumerate(across):
        x, y = left + cell * index + cell / 2, top - 6
        place = f'x="{x:g}" y="{y}" text-anchor="middle"'
        if upright:
            place = f'x="{x + 4:g}" y="{y}" transform="rotate(-90 {x + 4:g} {y})"'
        drawn.append(f"<text {place}>{escape(label)}</text>")
    for index, label in enumerate(down):
        drawn.append(f'<text x="{left - 6}" y="{top + _CELL * (index + 0.5) + 5:g}" text-anchor="end">{escape(label)}</text>')
    lines = [f"M{left + cell * index} {top}V{bottom}" for index in range(len(across) + 1)]
    lines += [f"M{left} {top + _CELL * index}H{right}" for index in range(len(down) + 1)]
    drawn.append(f'<path d="{"".join(lines)}"/>')
    for row, column in np.argwhere(weights >= _LEAST).tolist():
        weight = weights[row, column]
        place = f'x="{left + cell * column}" y="{top + _CELL * row}" width="{cell}" height="{_CELL}"'
        named = f"{visible(target[row])} ← {visible(source[column])} {weight:.3f}"
        said = f"<title>{escape(named)}</title>" if weights.size <= _NAMED else ""
        drawn.append(f'<rect {place} fill-opacity="{min(weight, 1):.3f}">{said}</rect>')
    style = f"<style>{_ALONE}{STYLE}</style>" if alone else ""
    return (
        f'<svg class="aligned" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right + 4} {bottom + 4}" width="{right + 4}" '
        f'height="{bottom + 4}" role="img" aria-label="{escape(visible(title))}">{style}{"".join(drawn)}</svg>'
    )


def columns(text: str) -> int:
    """Returns the columns of a terminal that a text takes: two for each wide character."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _width(label: str) -> int:
    """The pixels of a label. The dots of one that was cut are as wide as two characters."""
    return _EM * (columns(label) + label.endswith("…"))


def _label(token: str) -> str:
    """A token as a label, which is cut if it is long."""
    shown = visible(token)
    if columns(shown) <= _LONGEST:
        return shown
    while columns(shown) > _LONGEST - 2:
        shown = shown[:-1]
    return shown + "…"
