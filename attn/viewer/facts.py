"""What a page says beside the weights, and how text is made safe to show."""

from typing import NamedTuple

import numpy as np

from attn.viewer.summary import Plan


class Facts(NamedTuple):
    """What a page says beside the weights."""

    title: str
    tokens: list[str]  # [n], as they are shown
    plan: Plan
    prediction: dict[str, float]
    effect: np.ndarray | None  # float64 [n]
    effect_of: str
    layer: int  # shown first
    head: int | None
    notes: tuple[str, ...]


def visible(text: str) -> str:
    """A text with escapes for the characters that cannot be shown, or that change the direction of others."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
