"""The flags --grid: FIELD=VALUE,VALUE,…, or FIELD,FIELD=VALUE:VALUE,… for fields that go together."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from experiments import ranges, settings
from experiments.errors import UsageError
from experiments.sweeps import points
from experiments.sweeps.points import Point

_FORM = "must be FIELD=VALUE,VALUE,…, or FIELD,FIELD=VALUE:VALUE,… for fields that go together"
_OPENING, _CLOSING = "([{", ")]}"


def read(texts: Sequence[str]) -> list[Point]:
    """Returns the points of all flags, crossed: without a flag a single point that changes nothing.

    Raises:
      UsageError: A text is no grid, or there is no such field.
    """
    return points.crossed(*map(_points, texts))


def _points(text: str) -> list[Point]:
    names, equals, values = text.partition("=")
    fields = [name.strip() for name in names.split(",")]
    if not (equals and all(fields) and values.strip()):
        raise UsageError(f"--grid {text} {_FORM}")
    try:
        for field in fields:
            settings.rule_of(field)
    except UsageError as error:
        raise UsageError(f"--grid {text}: {error}") from None
    cells = _split(values, ",")
    if len(fields) == 1:
        return [{fields[0]: value} for cell in cells for value in _values(fields[0], cell, text)]
    rows = [_split(cell, ":") for cell in cells]
    for row in rows:
        if len(row) != len(fields):
            raise UsageError(f"--grid {text}: {':'.join(row)} must have {len(fields)} values, one for each field")
    return points.zipped({field: [_value(field, row[index]) for row in rows] for index, field in enumerate(fields)})


def _values(field: str, text: str, flag: str) -> list[Any]:
    if not re.fullmatch(r"\s*-?[0-9]+\.\.-?[0-9]+\s*", text):
        return [_value(field, text)]
    try:
        return list(ranges.integers(text))
    except ValueError as error:
        raise UsageError(f"--grid {flag}: {text} must be {error}") from None


def _value(field: str, text: str) -> Any:
    """Returns a value as the rule of its field wants it, or else as Python reads it: `trials` says what is wrong with it."""
    rule, text = settings.rule_of(field), text.strip()
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return text if rule.holds(text) and not rule.holds(value) else value


def _split(text: str, separator: str) -> list[str]:
    """Splits a text at the separators that are not in brackets, so that a value can be a tuple."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
