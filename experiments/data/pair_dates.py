"""Dates as people write them, and the same in the form of ISO 8601: "Tues 3rd of March 1998" and "1998-03-03".

Every date is in one split only. Numbers stand for day, month and year in this order, or in the opposite one with the year in
four digits; a year of two digits is one from 1950 to 2049. The day of the week is the right one, and adds no information.
"""

import calendar
import datetime
import re
from typing import NamedTuple

import numpy as np

SIZES = {"train": 16_000, "validation": 1_000, "test": 1_000}
FIELDS = ("day", "month", "year")
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
OUTPUT = {"year": slice(0, 4), "month": slice(5, 7), "day": slice(8, 10)}  # characters of a target

FORMATS = (
    "{weekday} {dth} of {month} {year}",
    "{weekday}, {month} {dth}, {year}",
    "{weekday} {d} {month} {year}",
    "{weekday}, {d}.{m}.{year}",
    "{weekday} the {dth} of {month}, {year}",
    "the {dth} of {month} {year}",
    "{dth} {month} {year}",
    "{dth} of {month} '{yy}",
    "{d} {month} {year}",
    "{dd} {month} {yy}",
    "{dd}-{month}-{year}",
    "{month} {d}, {year}",
    "{month} {dth} {year}",
    "{month} the {dth}, {year}",
    "{year} {month} {d}",
    "{year}, {month} the {dth}",
    "{d}/{m}/{year}",
    "{dd}/{mm}/{yy}",
    "{d}.{m}.{year}",
    "{dd}.{mm}.{yy}",
    "{d}. {m}. {year}",
    "{year}/{m}/{d}",
    "{year}.{mm}.{dd}",
    "{year}{mm}{dd}",
)
_CASES = (str, str, str.lower, str.upper)
_FIELD_OF = {"d": "day", "dd": "day", "dth": "day", "m": "month", "mm": "month", "month": "month", "year": "year", "yy": "year"}


class Example(NamedTuple):
    """A date.

    Attributes:
      source: As a person writes it.
      target: In the form of ISO 8601.
      spans: For each of FIELDS, the characters of the source that say it: the first, and the one behind the last.
    """

    source: str
    target: str
    spans: dict[str, tuple[int, int]]


def examples(seed: int = 0) -> dict[str, list[Example]]:
    """Returns the examples of the splits of SIZES by name."""
    rng = np.random.default_rng(seed)
    dates = rng.permutation((LAST - FIRST).days + 1)[: sum(SIZES.values())]
    splits, start = {}, 0
    for name, size in SIZES.items():
        days = dates[start : start + size].tolist()
        splits[name] = [_example(FIRST + datetime.timedelta(days=day), rng) for day in days]
        start += size
    return splits


def _example(date: datetime.date, rng: np.random.Generator) -> Example:
    template, case = FORMATS[rng.integers(len(FORMATS))], _CASES[rng.integers(len(_CASES))]
    text, spans = "", {}
    for literal, name in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
        text += literal
        if name:
            word = _written(date, name, rng)
            if name in _FIELD_OF:
                spans[_FIELD_OF[name]] = len(text), len(text) + len(word)
            text += word
    return Example(case(text), date.isoformat(), spans)


def _written(date: datetime.date, name: str, rng: np.random.Generator) -> str:
    def one_of(*words: str) -> str:
        return words[rng.integers(len(words))]

    if name == "weekday":
        full = calendar.day_name[date.weekday()]
        return one_of(full, full[:3], "Tues" if full == "Tuesday" else full[:3])
    if name == "month":
        full = calendar.month_name[date.month]
        return one_of(full, full, full[:3], "Sept" if full == "September" else full[:3])
    day = f"{date.day}{ordinal(date.day)}"
    numbers = {"d": str(date.day), "dd": f"{date.day:02}", "dth": day, "m": str(date.month), "mm": f"{date.month:02}"}
    return (numbers | {"year": str(date.year), "yy": f"{date.year % 100:02}"})[name]


def ordinal(day: int) -> str:
    """Returns the letters behind the number of a day: "st" of 1, 21 and 31."""
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
