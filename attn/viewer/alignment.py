"""The alignment of two sequences: which source tokens each target token looked at, as a page, a picture and a text."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attn.viewer import heat_map, saving
from attn.viewer.facts import visible
from attn.viewer.heat_map import columns

_SHADES = " ░▒▓█"
_MAPS = ".maps{display:flex;flex-wrap:wrap;gap:0 3rem}.maps section{max-width:100%}"


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
        style = resources.files("attn.viewer").joinpath("style.css").read_text(encoding="utf-8") + heat_map.STYLE + _MAPS
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        sections = "".join(
            f'<section aria-label="{escape(visible(name))}"><h2>{escape(visible(name))}</h2>'
            f'<div class="scroll" tabindex="0" role="region" aria-label="Heat map of {escape(visible(name))}">'
            f"{self._picture(name)}</div>{self._largest(name)}</section>"
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
up to 1. A cell without colour is a weight of 0, one of full colour a weight of 1. A weight says how much of a source token's
value was read, not what the output depends on.</p><div class="maps">{sections}</div></main>
</body></html>
"""

    def svg(self) -> str:
        """The first map as an SVG file."""
        return self._picture(next(iter(self.maps)), alone=True)

    def text(self) -> str:
        """The first map for a terminal: numbers, or shades of a block where each token of the source is one character."""
        weights, left = next(iter(self.maps.values())), max(map(columns, map(visible, self.target)))
        shaded = all(columns(visible(token)) == 1 for token in self.source)
        widths = [1 if shaded else max(4, columns(visible(token))) for token in self.source]
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

    def _picture(self, name: str, alone: bool = False) -> str:
        title = f"{self.title}, {name}: target tokens from top to bottom, source tokens from left to right"
        return heat_map.picture(self.source, self.target, self.maps[name], title, alone)

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


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))
