"""Ready functions for `mask_mod` of `attn.attend`: (batch, head, query_position, key_position) -> may attend.

Where an argument of `attend` says the same (`causal`, `window`, `query_segments`), that one is faster: what it empties is
known before the program runs. These are for what the arguments do not say, such as a union.
"""

import functools
import operator
from collections.abc import Callable

import jax.numpy as jnp

from attn.shapes import Array

MaskMod = Callable[[Array, Array, Array, Array], Array]


def causal(batch: Array, head: Array, query: Array, key: Array) -> Array:
    """Keys at or before the query."""
    return key <= query


def sliding_window(left: int | None, right: int | None) -> MaskMod:
    """Keys from `left` before to `right` after the query, inclusive; None is open (Beltagy et al. 2020, section 3.1)."""
    if left is None and right is None:
        raise ValueError("sliding_window(None, None) leaves nothing out: one side must be a number")
    return lambda batch, head, query, key: in_window(key - query, (left, right))


def in_window(distance, window: tuple[int | None, int | None]):
    """Whether a key at `distance` (key position − query position) is inside of `window`, (left, right), inclusive."""
    left, right = window
    inside = [] if left is None else [distance >= -left]
    inside += [] if right is None else [distance <= right]
    return functools.reduce(operator.and_, inside)


def document(documents: Array) -> MaskMod:
    """Keys of the query's own document; `documents` is `[length]` or `[B, length]`, the document that each position is in."""
    documents = jnp.asarray(documents)

    def may(batch: Array, head: Array, query: Array, key: Array) -> Array:
        row = documents if documents.ndim == 1 else documents[batch]
        return row[query] == row[key]

    return may


def prefix(length: Array | int) -> MaskMod:
    """Keys before `length`, one number or `[B]`. `any_of(prefix(length), causal)` is a prefix LM (Raffel et al. 2020)."""
    length = jnp.asarray(length)
    return lambda batch, head, query, key: key < (length if length.ndim == 0 else length[batch])


def all_of(*mods: MaskMod) -> MaskMod:
    """What every one of them allows."""
    return lambda *place: jnp.all(jnp.stack([mod(*place) for mod in mods]))


def any_of(*mods: MaskMod) -> MaskMod:
    """What at least one of them allows."""
    return lambda *place: jnp.any(jnp.stack([mod(*place) for mod in mods]))
