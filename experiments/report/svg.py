"""Charts as inline SVG: axes, lines, bands and points. Colours are variables of the page, so that they follow its theme."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from experiments.errors import printable

COLOURS = 8  # of the page's style; number 0 is grey
WIDTH, HEIGHT = 420, 270  # about the size in which a phone shows it, so that its text stays readable
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 26, 30, 40
_LINE = 13  # the height of a line of text
_POINTS = 400  # of a line; of more, so many are drawn

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line through points, with a number at its end if `number` is true. `style` is a class of the page's style."""

    points: Points
    colour: int
    name: str
    style: str = "mean"
    number: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two lines at the same places: (x, low, high)."""

    points: Sequence[tuple[float, float, float]]
    colour: int
    style: str  # "range" or "spread"


@dataclass(frozen=True)
class Dots:
    """Points, each with a whisker from low to high: (x, y, low, high)."""

    points: Sequence[tuple[float, float, float, float]]
    colour: int
    name: str


@dataclass(frozen=True)
class Axes:
    """What a chart says beside its marks.

    Attributes:
      anchor: Its id in the page.
      title: The text above it.
      description: What it shows, for those who cannot see it.
      x: The name of the horizontal axis.
      x_range: The ends of that axis.
      y_range: Those of the vertical axis.
      x_ticks: Where the horizontal axis has numbers, and their texts; None is everywhere.
    """

    anchor: str
    title: str
    description: str
    x: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_ticks: Sequence[tuple[float, str]] | None = None


def chart(axes: Axes, marks: Sequence[Line | Band | Dots]) -> str:
    """Returns a chart. Marks outside of its ranges are cut off."""
    x, y = _scale(axes.x_range, _LEFT, WIDTH - _RIGHT), _scale(axes.y_range, HEIGHT - _BOTTOM, _TOP)
    kinds = {Band: _band, Line: _line, Dots: _dots}
    drawn = [kinds[type(mark)](mark, x, y) for mark in sorted(marks, key=lambda mark: list(kinds).index(type(mark)))]
    anchor = escape(axes.anchor)
    inner = f'x="{_LEFT}" y="{_TOP - 4}" width="{WIDTH - _LEFT - _RIGHT + 4}" height="{HEIGHT - _TOP - _BOTTOM + 8}"'
    return "".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{anchor}-t {anchor}-d">',
            f'<title id="{anchor}-t">{_text(axes.title)}</title><desc id="{anchor}-d">{_text(axes.description)}</desc>',
            f'<clipPath id="{anchor}-c"><rect {inner}/></clipPath>',
            f'<text class="name" x="{_LEFT}" y="16">{_text(axes.title)}</text>',
            *_grid(axes, x, y),
            f'<g clip-path="url(#{anchor}-c)">',
            *drawn,
            "</g>",
            *_numbers([mark for mark in marks if isinstance(mark, Line) and mark.number and mark.points], x, y),
            "</svg>",
        ]
    )


def around(values: Sequence[float]) -> tuple[float, float]:
    """Returns a range with some room around values."""
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[tuple[float, str]]:
    """Returns at most about `count` round numbers in a range, with their texts."""
    rough = max((high - low) / count, 1e-300)
    power = 10.0 ** math.floor(math.log10(rough))
    factors = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(power * factor for factor in factors if power * factor >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(number * step, short(number * step, step)) for number in range(first, last + 1)]


def short(value: float, step: float) -> str:
    """Returns a number of an axis with steps of a size, as "0.25", "2.5k" or "1e-05"."""
    largest = max(abs(value), step)
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if largest >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:.{max(0, -_power(step / unit))}f}{letter}" if value else "0"
    if step < 1e-4 or largest >= 1e15:
        return f"{value:.3g}"
    return f"{value:.{max(0, -_power(step))}f}"


def _power(step: float) -> int:
    """The decimal place of the last digit of a step: -2 of 0.25."""
    digits = f"{step:.1e}"
    return int(digits[4:]) - (digits[2] != "0")


def _scale(ends: tuple[float, float], start: float, stop: float) -> Callable[[float], float]:
    low, high = ends
    span = high - low

    def place(value: float) -> float:
        near = min(max(value, low - 9 * span), high + 9 * span)  # what is cut off needs no long coordinates
        return start + (stop - start) * (near - low) / span

    return place


def _text(text: str) -> str:
    return escape(printable(text))


def _grid(axes: Axes, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    drawn, right, bottom = [], WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for value, text in ticks(*axes.y_range, 5):
        drawn.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{right}"/>')
        drawn.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in ticks(*axes.x_range, 7, whole=True) if axes.x_ticks is None else axes.x_ticks:
        drawn.append(f'<text class="tick" x="{x(value):.1f}" y="{bottom + 17}" text-anchor="middle">{_text(text)}</text>')
        drawn.append(f'<path class="grid" d="M{x(value):.1f} {bottom}v4"/>')
    middle = (_LEFT + right) / 2
    drawn.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    drawn.append(f'<text class="tick" x="{middle:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{_text(axes.x)}</text>')
    return drawn


def _thinned(points: Sequence) -> Sequence:
    step = -(-len(points) // _POINTS)
    return points if step <= 1 else [*points[:-1:step], points[-1]]


def _band(band: Band, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    points = _thinned(band.points)
    there = [f"{x(at):.1f} {y(high):.1f}" for at, _, high in points]
    back = [f"{x(at):.1f} {y(low):.1f}" for at, low, _ in reversed(points)]
    return f'<path class="{band.style} c{band.colour}" d="M{"L".join(there + back)}Z"/>' if points else ""


def _line(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    points, name = [(x(a), y(b)) for a, b in _thinned(line.points)], _text(line.name)
    if len(points) == 1:
        return _dot(line.colour, *points[0], name)
    path = "L".join(f"{at:.1f} {height:.1f}" for at, height in points)
    return f'<path class="{line.style} c{line.colour}" d="M{path}"><title>{name}</title></path>' if points else ""


def _dots(dots: Dots, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    name, drawn = _text(dots.name), []
    for at, middle, low, high in dots.points:
        drawn.append(f'<path class="whisker c{dots.colour}" d="M{x(at):.1f} {y(low):.1f}V{y(high):.1f}"/>')
        drawn.append(_dot(dots.colour, x(at), y(middle), name))
    return "".join(drawn)


def _dot(colour: int, at: float, height: float, name: str) -> str:
    return f'<circle class="dot c{colour}" cx="{at:.1f}" cy="{height:.1f}" r="4"><title>{name}</title></circle>'


def _numbers(lines: Sequence[Line], x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """The number of each line beside its end, moved where two would overlap, so that lines can be told without colours."""
    ordered = sorted(lines, key=lambda line: y(line.points[-1][1]))
    heights = [min(max(y(line.points[-1][1]), _TOP), HEIGHT - _BOTTOM) for line in ordered]
    for _ in range(2):
        for i, j in itertools.pairwise(range(len(heights))):
            heights[j] = max(heights[j], heights[i] + _LINE)
        over = max([0.0, *(heights[-1:])]) - (HEIGHT - _BOTTOM)
        if over > 0:
            heights = [height - over for height in heights]
    return [
        f'<text class="number c{line.colour}" x="{x(line.points[-1][0]) + 6:.1f}" y="{height + 4:.1f}">{line.colour}</text>'
        for line, height in zip(ordered, heights, strict=True)
    ]
