"""Integers as they are typed: "3", "0..9" with both ends, and several with commas between them, such as "0..4,7"."""

import re

RULE = "integers such as 3, ranges with both ends such as 0..9, or several of them with commas between, none twice"
_MOST = 10_000


def integers(text: str) -> tuple[int, ...]:
    """Returns the integers in the order in which they are typed. Raises ValueError with RULE if they are no such text."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})(?:\.\.([0-9]{1,10}))?\s*", part)
        if not match:
            raise ValueError(RULE)
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first < _MOST:
            raise ValueError(RULE)
        found += range(first, last + 1)
    if len(found) > _MOST or len(set(found)) < len(found):
        raise ValueError(RULE)
    return tuple(found)
