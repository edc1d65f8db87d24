"""The points of a sweep: which fields have which values. A page of `configs/` imports these for its `sweep()`.

    def sweep():
        yield from crossed(zipped({"model.num_heads": [1, 2, 4], "model.key_dim": [32, 16, 8]}), seeds("0..4"))

A point is a dict of dotted fields. Nothing is checked here that `trials` checks for all points, whoever made them.
"""

import itertools
import math
import random as _random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from experiments import ranges
from experiments.errors import UsageError

Point = dict[str, Any]
Draw = Callable[[_random.Random], float]
_ATTEMPTS = 1000  # draws for each point that is not one of the earlier ones


def grid(fields: Mapping[str, Iterable[Any] | str] | None = None, /, **more: Iterable[Any] | str) -> list[Point]:
    """Returns all combinations, the last field varying fastest.

    Args:
      fields: The values of each field. A text is a range of integers, such as "0..9".
      **more: The same, for fields without a dot in their names.
    """
    return crossed(*([{name: value} for value in _values(name, found)] for name, found in _all(fields, more).items()))


def zipped(fields: Mapping[str, Iterable[Any] | str] | None = None, /, **more: Iterable[Any] | str) -> list[Point]:
    """Returns a point for the first values of all fields, one for the second values, and so on; arguments as in `grid`."""
    columns = {name: _values(name, found) for name, found in _all(fields, more).items()}
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{len(values)} of {name}" for name, values in columns.items())
        raise UsageError(f"zipped() needs as many values of one field as of the others, not {lengths}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def random(fields: Mapping[str, Iterable[Any] | Draw], n: int, seed: int) -> list[Point]:
    """Returns n different points at random. With a larger n, the first ones stay the same.

    Args:
      fields: For each field the values to choose from, or `uniform` or `log_uniform`.
      n: How many points.
      seed: The seed of the choices. Each field has random numbers of its own.
    """
    generators = {name: _random.Random(f"{seed} {name}") for name in fields}
    choices = {name: found if callable(found) else _values(name, found) for name, found in fields.items()}
    points: dict[str, Point] = {}
    for _ in range(_ATTEMPTS * n):
        if len(points) < n:
            draws = ((name, generators[name], found) for name, found in choices.items())
            point = {name: found(generator) if callable(found) else generator.choice(found) for name, generator, found in draws}
            points.setdefault(repr(point), point)
    if len(points) < n:
        raise UsageError(f"random() found no more than {len(points)} different points of {n}")
    return list(points.values())


def uniform(low: float, high: float) -> Draw:
    """Returns what draws a number between two others, for `random`."""
    return lambda generator: generator.uniform(low, high)


def log_uniform(low: float, high: float) -> Draw:
    """Returns what draws a positive number whose logarithm is uniform, for `random`."""
    return lambda generator: math.exp(generator.uniform(math.log(low), math.log(high)))


def seeds(text: str) -> list[Point]:
    """Returns a point for each seed of a range such as "0..9", both ends included, or "0..4,7"."""
    return grid(seed=text)


def crossed(*sources: Iterable[Point]) -> list[Point]:
    """Returns all combinations of points, one of each source, the last source varying fastest."""
    points = []
    for combination in itertools.product(*sources):
        point: Point = {}
        for part in combination:
            if twice := point.keys() & part.keys():
                raise UsageError(f"the field {min(twice)} is set by two of the sources that are crossed")
            point |= part
        points.append(point)
    return points


def _all(fields: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    if twice := (fields or {}).keys() & more.keys():
        raise UsageError(f"the field {min(twice)} is given twice")
    return {**(fields or {}), **more}


def _values(name: str, found: Iterable[Any] | str) -> list[Any]:
    try:
        values = list(ranges.integers(found)) if isinstance(found, str) else list(found)
    except (ValueError, TypeError):
        raise UsageError(f"{name}={found!r} must be a list of values, or a text with {ranges.RULE}") from None
    if not values:
        raise UsageError(f"the field {name} has no values")
    return values
