"""Functions for the argument `mask_mod` of `attn.attend`: (batch, head, query_position, key_position) -> bool.

True means: may attend. Where an argument of `attend` expresses the same mask (`causal`, `window`, `query_segments`), that
argument is faster, because the tiles that it leaves empty are known before the program runs. These functions are for masks
that the arguments cannot express, such as unions.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from attn._integers import LARGEST, as_clipped, as_labels
from attn._validation import as_int
from attn.shapes import Array

MaskMod = Callable[[Array, Array, Array, Array], Array]


def causal(batch: Array, head: Array, query: Array, key: Array) -> Array:
    """Keys at or before the query."""
    return key <= query


def sliding_window(left: int | None, right: int | None) -> MaskMod:
    """Keys from `left` before to `right` after the query, inclusive; None is open (Beltagy et al. 2020, section 3.1)."""
    if left is None and right is None:
        raise ValueError("sliding_window(None, None) masks nothing: one side must be a number")
    window = _side("left", left), _side("right", right)
    return lambda batch, head, query, key: in_window(key - query, window)


def _side(name: str, side: Any) -> Any:
    if side is None:
        return None
    if (number := as_int(side)) is not None:
        return min(number, LARGEST)  # the distance of two positions is never more
    return as_clipped(name, side)  # traced


def in_window(distance, window: tuple[int | None, int | None]):
    """Whether a key at `distance` (key position − query position) is inside of `window`, (left, right), inclusive."""
    left, right = window
    inside = [] if left is None else [distance >= -left]
    inside += [] if right is None else [distance <= right]
    return functools.reduce(operator.and_, inside)


def document(documents: Array) -> MaskMod:
    """Keys of the query's own document. `documents` is `[length]` or `[B, length]`: the document of each position."""
    documents = as_labels(documents=documents)[0]

    def may(batch: Array, head: Array, query: Array, key: Array) -> Array:
        row = documents if documents.ndim == 1 else documents[batch]
        return row[query] == row[key]

    return may


def prefix(length: Array | int) -> MaskMod:
    """Keys before `length`, one number or `[B]`. `any_of(prefix(length), causal)` is a prefix LM (Raffel et al. 2020)."""
    length = as_clipped("length", length)
    return lambda batch, head, query, key: key < (length if length.ndim == 0 else length[batch])


def all_of(*mods: MaskMod) -> MaskMod:
    """The intersection of masks."""
    return lambda *place: jnp.all(jnp.stack([mod(*place) for mod in mods]))


def any_of(*mods: MaskMod) -> MaskMod:
    """The union of masks."""
    return lambda *place: jnp.any(jnp.stack([mod(*place) for mod in mods]))
