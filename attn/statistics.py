"""Statistics of attention weights, in memory linear in T and S: the weights are computed tile by tile and never stored.

All statistics are of the masked weights before dropout.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attn._validation import as_int
from attn.kernels.chunked.attention import attention
from attn.kernels.chunked.forward import log_normalizer
from attn.kernels.explicit_mesh import with_automatic_axes
from attn.kernels.inputs import Inputs
from attn.kernels.options import Options, Sizes, parse_options
from attn.kernels.tiles.logits import tile_logits
from attn.kernels.tiles.loop import for_each_tile
from attn.kernels.tiles.mask import tile_mask
from attn.kernels.tiles.products import find_masked_nonfinite
from attn.kernels.tiles.slices import pad_to_blocks, slice_array, slice_tile
from attn.kernels.tiles.tiling import Block, Offset, choose_block
from attn.kernels.validation import validate
from attn.kernels.validation.sizes import as_arrays
from attn.normalizers import WITH_SINK, finite_max
from attn.shapes import Array, Key, Query, Value


class Statistics(NamedTuple):
    """Statistics of attention. A query that may attend to no key has lse and max_score −inf, and adds nothing to `received`."""

    lse: Array  # [*B, N, T], log Σ exp(logits) over the keys; a sink is not included
    entropy: Array  # [*B, N, T], −Σ w ln w in nats
    max_score: Array  # [*B, N, T], the highest logit
    received: Array  # [*B, N, S], the sum of the weights over the queries
    top_weights: Array  # [*B, N, T, k], in descending order
    top_indices: Array  # [*B, N, T, k] int32, their keys; −1, with weight 0, where fewer keys have weight


class _Sums(NamedTuple):
    entropy: Array  # [B, K, R, T]
    max_score: Array
    received: Array  # [B, K, R, S]
    top_weights: Array  # [B, K, R, T, k]
    top_indices: Array


_SUM_AXES = ("bkrt", "bkrt", "bkrs", "bkrt", "bkrt")


def attention_statistics(
    query: Query,
    key: Key,
    value: Value | None = None,
    *,
    top_k: int = 0,
    block: int | tuple[int, int] | None = None,
    **options: Any,
) -> Statistics:
    """Statistics of the weights that `attn.attend` would use for the same arguments, in memory linear in T and S.

    The gradient of the log-sum-exp takes linear memory too. The other statistics are differentiated by JAX, which stores
    T × S numbers.

    Args:
      query, key: as in `attn.attend`.
      value: may be left out, since no statistic depends on it.
      top_k: how many of the largest weights of each query to return, with their keys.
      block: as in `attn.attend`.
      **options: the other keyword arguments of `attn.attend`: score, scale, bias, mask, query_lengths, key_lengths,
        query_segments, key_segments, causal, window, query_positions, key_positions, score_mod, mask_mod, normalizer and
        sink. dropout_rate, dropout_rng and dropout_offset are accepted too and change nothing.

    Returns:
      The statistics, each of at least float32.

    Raises:
      ValueError: one line with the argument, its value and the rule. The normaliser must be "softmax" or "softmax1".

    Example:
      >>> attn.attention_statistics(query, key, causal=True).entropy.mean(axis=-1)  # of each head, in nats
    """

    def run(query: Query, key: Key, value: Value, options: Options) -> Statistics:
        inputs, sizes = validate(query, key, value, options)
        if inputs.normalizer not in WITH_SINK:
            raise ValueError(f"normalizer={inputs.normalizer!r} has no statistics: only {' and '.join(WITH_SINK)} have")
        number = as_int(top_k)
        if number is None or not 0 <= number <= sizes.S:
            raise ValueError(f"top_k={top_k!r} must be an int from 0 to the number of keys, {sizes.S}")
        if sizes.empty:
            return _empty_statistics(sizes, number, inputs.dtype)
        undropped = dataclasses.replace(inputs, rng=None, index_offset=None, dropout_rate=0.0, value=inputs.value[..., :0])
        return _statistics(undropped, sizes, number, choose_block(undropped, block))

    arrays = as_arrays(query, key, key if value is None else value)
    axes = Statistics._make(("nt", "nt", "nt", "ns", "nt.", "nt."))
    return with_automatic_axes(run, *arrays, parse_options("attention_statistics", options), axes)


def _empty_statistics(sizes: Sizes, top_k: int, dtype: jnp.dtype) -> Statistics:
    rows = (*sizes.batch, sizes.N, sizes.T)
    lowest, zeros, top = jnp.full(rows, -jnp.inf, dtype), jnp.zeros(rows, dtype), jnp.zeros((*rows, top_k), dtype)
    return Statistics(lowest, zeros, lowest, jnp.zeros((*rows[:-1], sizes.S), dtype), top, jnp.full(top.shape, -1, jnp.int32))


@functools.partial(jax.jit, static_argnames=("sizes", "top_k", "block"))
def _statistics(inputs: Inputs, sizes: Sizes, top_k: int, block: Block) -> Statistics:
    padded = pad_to_blocks(inputs, block)
    _, lse = attention(padded, block)
    normalizer = log_normalizer(padded, lse)
    masked_nonfinite = find_masked_nonfinite(padded)

    def visit(sums: _Sums, offset: Offset) -> _Sums:
        tile, indices = slice_tile(padded, offset, block)
        allowed = tile_mask(padded, tile, indices)
        logits = tile_logits(tile, indices, allowed, masked_nonfinite)
        total = slice_array(normalizer, "bkrt", offset, block)[..., None]
        weights = jnp.where((indices.query < sizes.T)[:, None], jnp.exp(logits - finite_max(total)), 0)
        weights = weights if allowed is None else jnp.where(allowed, weights, 0)
        logs = jnp.where(weights > 0, logits - finite_max(total), 0)
        top_weights, top_indices = _top(top_k, sums, weights, indices.key)
        return _Sums(
            sums.entropy - jnp.sum(jnp.where(weights > 0, weights * logs, 0), axis=-1),
            jnp.maximum(sums.max_score, jnp.max(logits, axis=-1)),
            sums.received + jnp.sum(weights, axis=-2),
            top_weights,
            top_indices,
        )

    sums = for_each_tile(padded, block, visit, _initial_sums(padded, top_k), _SUM_AXES)
    queries, keys = slice(0, sizes.T), slice(0, sizes.S)

    def by_head(array: Array, unpadded: slice) -> Array:
        array = array[:, :, :, unpadded]
        return array.reshape(*sizes.batch, sizes.N, *array.shape[3:])

    return Statistics(
        by_head(lse, queries),
        by_head(jnp.maximum(sums.entropy, 0), queries),  # −1 · ln 1 is −0, and rounding may be below it
        by_head(sums.max_score, queries),
        by_head(sums.received, keys),
        by_head(sums.top_weights, queries),
        by_head(sums.top_indices, queries),
    )


def _initial_sums(inputs: Inputs, top_k: int) -> _Sums:
    *heads, queries, _ = inputs.query.shape
    zeros = jnp.zeros((*heads, queries), inputs.dtype)
    top = jnp.zeros((*heads, queries, top_k), inputs.dtype)
    received = jnp.zeros((*heads, inputs.key.shape[2]), inputs.dtype)
    return _Sums(zeros, zeros - jnp.inf, received, top, jnp.full(top.shape, -1, jnp.int32))


def _top(top_k: int, sums: _Sums, weights: Array, keys: Array) -> tuple[Array, Array]:
    """The largest weights of those so far and those of one more tile; of equal weights the one that comes first."""
    if top_k == 0:
        return sums.top_weights, sums.top_indices
    candidates = jnp.concatenate([sums.top_weights, weights], axis=-1)
    indices = jnp.concatenate([sums.top_indices, jnp.broadcast_to(keys, weights.shape)], axis=-1)
    top_weights, order = lax.top_k(candidates, top_k)
    return top_weights, jnp.take_along_axis(indices, order, axis=-1)
