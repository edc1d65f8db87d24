"""The alignment of two sequences: which source tokens each target token looked at, as a page, a picture and a text."""

import base64
import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attn.viewer import saving
from attn.viewer.facts import visible

_CELL, _EM, _GAP = 26, 8, 10  # pixels: a cell's side, the width of a narrow character, between labels and cells
_LEAST = 0.004  # a weight that is drawn
_NAMED = 4_096  # cells up to which each one names its weight when it is pointed at
_SHADES = " ░▒▓█"
_PICTURE = (
    ".aligned{display:block}"
    ".aligned text{font:13px system-ui,'Noto Sans','Noto Sans CJK SC','PingFang SC','Microsoft YaHei',sans-serif;"
    "fill:var(--ink)}"
    ".aligned rect{fill:var(--heat)}.aligned .grid{fill:none;stroke:var(--rule)}"
)
_ALONE = "svg{--ink:#1d2026;--heat:#1f5fae;--rule:#d9dce3;background:#fff}"


class Alignment(NamedTuple):
    """What one target looked at; `align` makes it.

    Attributes:
      source: the tokens of the source, `[S]`.
      target: the tokens of the target, `[U]`.
      maps: by their names, weights `[U, S]`.
      title: the headline.
      notes: sentences below it.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    maps: dict[str, np.ndarray]
    title: str
    notes: tuple[str, ...]

    def html(self) -> str:
        """A page of all maps, which needs no other file, makes no request, and has no script."""
        style = resources.files("attn.viewer").joinpath("style.css").read_text(encoding="utf-8") + _PICTURE
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        sections = "".join(
            f'<section aria-label="{escape(visible(name))}"><h2>{escape(visible(name))}</h2>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="Heat map of {escape(visible(name))}">'
            f"{_picture(self, name)}</div>{self._largest(name)}</section>"
            for name in self.maps
        )
        return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{digest}'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>{escape(visible(self.title))}</title><style>{style}</style></head><body>
<header><h1>{escape(visible(self.title))}</h1>
<ul id="notes">{"".join(f"<li>{escape(visible(note))}</li>" for note in self.notes)}</ul></header>
<main><p>A row shows which tokens of the source a token of the target looked at when it was computed; the weights of a row add
up to 1. A weight says how much of a source token's value was read, not what the output depends on.</p>{sections}</main>
</body></html>
"""

    def svg(self) -> str:
        """The first map as an SVG file."""
        return _picture(self, next(iter(self.maps)), alone=True)

    def text(self) -> str:
        """The first map for a terminal: numbers, or shades of a block where each token of the source is one character."""
        weights, left = next(iter(self.maps.values())), max(map(_columns, map(visible, self.target)))
        shaded = all(_columns(visible(token)) == 1 for token in self.source)
        widths = [1 if shaded else max(4, _columns(visible(token))) for token in self.source]
        gap = "" if shaded else " "
        header = gap.join(_padded(visible(token), width) for token, width in zip(self.source, widths, strict=True))
        lines = [" " * (left + 1) + header.rstrip()]
        for token, row in zip(self.target, weights, strict=True):
            cells = [_SHADES[round(4 * x)] if shaded else f"{x:.2f}" for x in row]
            shown = gap.join(_padded(cell, width) for cell, width in zip(cells, widths, strict=True))
            lines.append(f"{_padded(visible(token), left)} {shown}".rstrip())
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Writes the page, or the picture if the name ends with .svg. Raises ValueError for another ending, and OSError."""
        return saving.save(self, path)

    def __repr__(self) -> str:
        return f"<attn.viewer.Alignment {visible(self.title)!r} source={len(self.source)} target={len(self.target)}>"

    def _repr_html_(self) -> str:
        frame = 'sandbox width="100%" height="560" frameborder="0" title="Alignment"'
        return f'<iframe {frame} srcdoc="{escape(self.html())}"></iframe>'

    def _largest(self, name: str) -> str:
        """A table for those who cannot see the map: the source token with the largest weight, for each target token."""
        rows = "".join(
            f'<tr><th scope="row">{escape(visible(token))}</th><td>{escape(visible(self.source[int(row.argmax())]))}</td>'
            f"<td>{row.max():.2f}</td></tr>"
            for token, row in zip(self.target, self.maps[name], strict=True)
        )
        head = '<th scope="col">target</th><th scope="col">looked most at</th><th scope="col">weight</th>'
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<details><summary>As a table</summary>{table}</details>"


def align(
    source: Sequence[str],
    target: Sequence[str],
    weights: Any,
    *,
    title: str = "Alignment",
    notes: Sequence[str] = (),
) -> Alignment:
    """The alignment of a target with its source, from arrays of any origin.

    Args:
      source: the tokens of the source, `[S]`.
      target: the tokens of the target, `[U]`.
      weights: numbers from 0 to 1: `[U, S]`; or `[N, U, S]`, one map for each head behind the mean of them; or a dict from
        names to `[U, S]`.
      title: the headline.
      notes: sentences below it.

    Raises:
      ValueError: one line, if a sequence is empty, or the weights have another shape or other numbers.
    """
    if not source or not target:
        raise ValueError(f"source has {len(source)} tokens and target {len(target)}: each must have at least one")
    maps = {name: np.asarray(array, np.float64) for name, array in _named(weights).items()}
    for name, array in maps.items():
        if array.shape != (len(target), len(source)):
            raise ValueError(f"weights {array.shape} of {name!r} must be [U, S] = ({len(target)}, {len(source)})")
        if not (np.all(array >= 0) and np.all(array <= 1 + 1e-3)):  # NaN is neither
            raise ValueError(f"weights of {name!r} must be numbers from 0 to 1")
    return Alignment(tuple(source), tuple(target), maps, title, tuple(notes))


def _named(weights: Any) -> Mapping[str, Any]:
    if isinstance(weights, Mapping):
        if not weights:
            raise ValueError("weights={} must have at least one map")
        return weights
    array = np.asarray(weights, np.float64)
    if array.ndim != 3 or len(array) < 2:
        return {"weights": array[0] if array.ndim == 3 and len(array) else array}
    return {"mean of the heads": array.mean(0)} | {f"head {index}": each for index, each in enumerate(array)}


def _picture(alignment: Alignment, name: str, alone: bool = False) -> str:
    """A map as SVG: target tokens down, source tokens across; long ones stand upright."""
    source, target = [visible(t) for t in alignment.source], [visible(t) for t in alignment.target]
    weights = alignment.maps[name]
    left = _EM * max(map(_columns, target)) + _GAP
    longest = max(map(_columns, source))
    upright = longest * _EM > _CELL + _EM
    top = (_EM * longest if upright else 14) + _GAP
    width, height = left + _CELL * len(source) + 4, top + _CELL * len(target) + 4
    drawn = []
    for index, token in enumerate(source):
        x = left + _CELL * index + _CELL / 2
        turned = f'transform="rotate(-90 {x + 4:g} {top - 6})" text-anchor="start"' if upright else 'text-anchor="middle"'
        drawn.append(f'<text x="{x + (4 if upright else 0):g}" y="{top - 6}" {turned}>{escape(token)}</text>')
    for index, token in enumerate(target):
        y = top + _CELL * index + _CELL / 2 + 5
        drawn.append(f'<text x="{left - 6}" y="{y:g}" text-anchor="end">{escape(token)}</text>')
    for (row, column), weight in np.ndenumerate(weights):
        if weight >= _LEAST:
            place = f'x="{left + _CELL * column}" y="{top + _CELL * row}" width="{_CELL}" height="{_CELL}"'
            said = (
                f"<title>{escape(target[row])} ← {escape(source[column])} {weight:.3f}</title>"
                if weights.size <= _NAMED
                else ""
            )
            drawn.append(f'<rect {place} fill-opacity="{min(weight, 1):.3f}">{said}</rect>')
    grid = f'<rect class="grid" x="{left}" y="{top}" width="{_CELL * len(source)}" height="{_CELL * len(target)}"/>'
    label = escape(f"{alignment.title}, {name}: target tokens from top to bottom, source tokens from left to right")
    style = f"<style>{_ALONE}{_PICTURE}</style>" if alone else ""
    return (
        f'<svg class="aligned" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{label}">{style}{"".join(drawn)}{grid}</svg>'
    )


def _columns(text: str) -> int:
    """The columns of a terminal that a text takes: two for each wide character."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - _columns(text))
