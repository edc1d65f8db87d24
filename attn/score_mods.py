"""Functions for the argument `score_mod` of `attn.attend`: (score, batch, head, query_position, key_position) -> score."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from attn.shapes import Array

ScoreMod = Callable[[Array, Array, Array, Array, Array], Array]


def alibi(num_heads: int) -> ScoreMod:
    """score − slope[head] · |query − key|: ALiBi (Press et al. 2022, section 3), also for keys after the query."""
    slopes = alibi_slopes(num_heads)

    def modify(score: Array, batch: Array, head: Array, query: Array, key: Array) -> Array:
        return score - _at(jnp.asarray(slopes, score.dtype), head) * jnp.abs(query - key).astype(score.dtype)

    return modify


def alibi_slopes(num_heads: int) -> np.ndarray:
    """`[N]` float64: 2^(−8 n / N) for n = 1 … N where N is a power of two.

    For other N they are the slopes of the next lower power of two, followed by every other slope of the next higher one, as
    in the authors' code. Raises ValueError where `num_heads` is less than 1.
    """
    if num_heads < 1:
        raise ValueError(f"num_heads={num_heads} must be at least 1")
    lower = 2 ** int(math.log2(num_heads))
    slopes = 2.0 ** (-8 / lower * np.arange(1, lower + 1))
    between = 2.0 ** (-4 / lower * np.arange(1, 2 * lower, 2))
    return np.concatenate([slopes, between[: num_heads - lower]])


def t5_relative_bias(table: Array, *, bidirectional: bool = True, max_distance: int = 128) -> ScoreMod:
    """score + table[bucket(key − query), head]: the relative bias of T5 (Raffel et al. 2020, section 2.1).

    Args:
      table: `[buckets, N]`, learned.
      bidirectional: whether half of the buckets are for keys after the query; otherwise those share the bucket of distance 0.
      max_distance: half of the buckets of each direction hold one distance each; the others grow wider logarithmically up to
        this distance, and the last one holds everything beyond it.
    """
    table, buckets = jnp.asarray(table), table.shape[0]

    def modify(score: Array, batch: Array, head: Array, query: Array, key: Array) -> Array:
        return score + _at(table, t5_bucket(key - query, buckets, bidirectional, max_distance), head).astype(score.dtype)

    return modify


def t5_bucket(distance: Array, buckets: int, bidirectional: bool = True, max_distance: int = 128) -> Array:
    """The bucket of a distance, key position − query position, as in the authors' `_relative_position_bucket`."""
    if bidirectional:
        buckets //= 2
        first, distance = jnp.where(distance > 0, buckets, 0), jnp.abs(distance)
    else:
        first, distance = 0, jnp.maximum(-distance, 0)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(float(max_distance) / exact)
    wide = exact + (ratio * (buckets - exact)).astype(jnp.int32)
    return first + jnp.where(distance < exact, distance, jnp.minimum(wide, buckets - 1))


def soft_cap(cap: float) -> ScoreMod:
    """cap · tanh(score / cap) (Gemma 2, 2024, section 2)."""

    def modify(score: Array, batch: Array, head: Array, query: Array, key: Array) -> Array:
        limit = jnp.asarray(cap, score.dtype)
        return limit * jnp.tanh(score / limit)

    return modify


def relative_bias(table: Array) -> ScoreMod:
    """score + table[head, key − query + (D − 1) / 2]: a learned bias by head and distance, `[N, D]`, D = 2 · length − 1."""
    table, centre = jnp.asarray(table), (table.shape[1] - 1) // 2

    def modify(score: Array, batch: Array, head: Array, query: Array, key: Array) -> Array:
        return score + _at(table, head, key - query + centre).astype(score.dtype)

    return modify


def _at(table: Array, *index: Array) -> Array:
    """An entry of the table, or NaN outside of it, where JAX's indexing would return the last entry."""
    return table.at[index].get(mode="fill", fill_value=jnp.nan)


def chain(*mods: ScoreMod) -> ScoreMod:
    """The mods applied one after the other, the first one first."""

    def modify(score: Array, batch: Array, head: Array, query: Array, key: Array) -> Array:
        for mod in mods:
            score = mod(score, batch, head, query, key)
        return score

    return modify
