"""The forward pass tile by tile: the online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attn.kernels.inputs import Inputs
from attn.kernels.tiles.dropout import apply_dropout
from attn.kernels.tiles.indices import TileIndices
from attn.kernels.tiles.logits import tile_logits
from attn.kernels.tiles.loop import for_each_tile, skip_if_masked
from attn.kernels.tiles.mask import tile_mask
from attn.kernels.tiles.products import MaskedNonfinite, contract, find_masked_nonfinite
from attn.kernels.tiles.slices import slice_tile
from attn.kernels.tiles.tiling import Block, Offset, full_block
from attn.normalizers import finite_max
from attn.shapes import Allowed, Array


class OnlineSoftmax(NamedTuple):
    """The state of the online softmax for each query, after some of its keys."""

    highest: Array  # [B, K, R, T], the highest logit; −inf before the first key
    total: Array  # [B, K, R, T], Σ exp(logit − highest)
    output: Array  # [B, K, R, T, V], Σ exp(logit − highest) · value


class Normalization(NamedTuple):
    """What turns a logit into a weight: exp(logit − highest) / total. A query without a key has highest 0 and total 1."""

    highest: Array  # [B, K, R, T], over the keys and the sink
    total: Array  # [B, K, R, T], Σ exp(· − highest) over the keys and the sink
    keys_total: Array  # [B, K, R, T], the same over the keys alone


def forward(inputs: Inputs, block: Block) -> tuple[Array, Array, Normalization]:
    """The output `[B, K, R, T, V]`, the log-sum-exp of the keys `[B, K, R, T]`, and the normalisation of each query."""
    masked_nonfinite = find_masked_nonfinite(inputs)

    def visit(state: OnlineSoftmax, offset: Offset) -> OnlineSoftmax:
        tile, indices = slice_tile(inputs, offset, block)
        allowed = tile_mask(inputs, tile, indices)
        return skip_if_masked(
            runtime_mask(inputs, allowed, block), lambda: add_keys(state, tile, indices, allowed, masked_nonfinite), state
        )

    return finish(inputs, for_each_tile(inputs, block, visit, initial_state(inputs), ("bkrt",) * 3))


def initial_state(inputs: Inputs) -> OnlineSoftmax:
    """The state of queries that have seen no key."""
    rows = inputs.query.shape[:-1]
    zeros = jnp.zeros(rows, inputs.dtype)
    return OnlineSoftmax(zeros - jnp.inf, zeros, jnp.zeros((*rows, inputs.value.shape[-1]), inputs.dtype))


def add_keys(
    state: OnlineSoftmax, tile: Inputs, indices: TileIndices, allowed: Allowed | None, masked_nonfinite: MaskedNonfinite
) -> OnlineSoftmax:
    """The state after the keys of one more tile."""
    logits = tile_logits(tile, indices, allowed, masked_nonfinite)
    if tile.normalizer == "sigmoid":
        weights, rescale = jax.nn.sigmoid(logits), 1
        highest, total = state.highest, state.total
    else:
        highest = jnp.maximum(state.highest, lax.stop_gradient(jnp.max(logits, axis=-1)))
        weights = jnp.exp(logits - finite_max(highest)[..., None])
        rescale = jnp.exp(state.highest - finite_max(highest))
        total = state.total * rescale + jnp.sum(weights, axis=-1)
        rescale = rescale[..., None]
    weights = apply_dropout(tile, indices, weights)
    output = contract("bkrtc", "bkrts", weights, "bksc", tile.value, allowed, masked_nonfinite)
    return OnlineSoftmax(highest, total, state.output * rescale + output)


def finish(inputs: Inputs, state: OnlineSoftmax) -> tuple[Array, Array, Normalization]:
    """Output, log-sum-exp of the keys, and normalisation, after the last tile."""
    if inputs.normalizer == "sigmoid":
        ones = jnp.ones_like(state.total)
        return state.output, jnp.full_like(state.highest, -jnp.inf), Normalization(jnp.zeros_like(ones), ones, ones)
    normalization = _with_sink(inputs, state.highest, state.total)
    empty = state.total == 0
    lse = jnp.where(empty, -jnp.inf, finite_max(state.highest) + jnp.log(jnp.where(empty, 1, state.total)))
    rescale = jnp.exp(state.highest - normalization.highest)
    return state.output * (rescale / normalization.total)[..., None], lse, normalization


def log_normalizer(inputs: Inputs, lse: Array) -> Array:
    """log(exp(lse) + exp(sink)), and 0 for a query with neither a key nor a sink."""
    normalization = _with_sink(inputs, lse, jnp.ones_like(lse))
    return normalization.highest + jnp.log(normalization.total)


def runtime_mask(inputs: Inputs, allowed: Allowed | None, block: Block) -> Allowed | None:
    """The mask where it may leave no pair of one of several tiles; a mask by position has removed such tiles from the loop.

    None where the arrays may be sharded: whether to skip a tile would be for all devices to agree on, tile by tile.
    """
    return allowed if inputs.has_runtime_mask and block != full_block(inputs) and inputs.devices == 1 else None


def _with_sink(inputs: Inputs, highest: Array, total: Array) -> Normalization:
    """The normalisation of queries whose keys have Σ exp(logit − highest) = total, with the sink."""
    sink = None if inputs.sink is None else inputs.sink[None, :, :, None].astype(highest.dtype)
    shared = finite_max(lax.stop_gradient(highest if sink is None else jnp.maximum(highest, sink)))
    keys_total = total * jnp.exp(highest - shared)
    total = keys_total if sink is None else keys_total + jnp.exp(sink - shared)
    return Normalization(shared, jnp.where(total == 0, 1, total), keys_total)
