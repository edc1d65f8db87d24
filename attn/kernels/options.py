"""The keyword arguments of `attn.attend` as one value, and the sizes of one call."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of one call by the letters of the legend; `batch` is the shape of the batch axes."""

    batch: tuple[int, ...]
    T: int
    S: int
    N: int
    K: int

    @property
    def B(self) -> int:  # noqa: N802
        """The product of the batch axes."""
        return math.prod(self.batch)

    @property
    def R(self) -> int:  # noqa: N802
        """The number of query heads for each key/value head."""
        return self.N // self.K

    @property
    def empty(self) -> bool:
        """Whether there is no pair of a query and a key."""
        return 0 in (self.B, self.T, self.S)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments of `attn.attend` that define the result, with their defaults."""

    score: Any = "scaled_dot"
    scale: Any = None
    bias: Any = None
    mask: Any = None
    query_lengths: Any = None
    key_lengths: Any = None
    query_segments: Any = None
    key_segments: Any = None
    causal: Any = None
    window: Any = None
    query_positions: Any = None
    key_positions: Any = None
    score_mod: Any = None
    mask_mod: Any = None
    normalizer: str = "softmax"
    sink: Any = None
    dropout_rate: float = 0.0
    dropout_rng: Any = None
    dropout_offset: Any = 0

    @property
    def has_positions(self) -> bool:
        return self.query_positions is not None or self.key_positions is not None

    @property
    def has_mask(self) -> bool:
        masks = (self.mask, self.query_lengths, self.key_lengths, self.query_segments, self.window, self.mask_mod)
        return self.causal not in (None, False) or any(mask is not None for mask in masks)


def parse_options(function: str, options: Mapping[str, Any]) -> Options:
    """The options of a function of `attn`. Raises TypeError, with the closest name, for one that does not exist."""
    names = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise TypeError(f"{function}() has no argument {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return Options(**options)
