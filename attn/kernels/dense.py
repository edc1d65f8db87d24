"""The definition: a single tile that holds everything, so that the weights are an array.

normalize(score(q, k) …) v, as in Vaswani et al. 2017, section 3.2.1. Plain `jax.numpy`, so every JAX transform works, and
memory is O(T · S).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from attn.kernels.inputs import Inputs
from attn.kernels.tiles.dropout import apply_dropout
from attn.kernels.tiles.indices import TileIndices
from attn.kernels.tiles.logits import tile_logits
from attn.kernels.tiles.mask import tile_mask
from attn.kernels.tiles.products import MaskedNonfinite, contract, find_masked_nonfinite
from attn.kernels.tiles.slices import slice_tile
from attn.kernels.tiles.tiling import Offset, full_block
from attn.normalizers import normalize
from attn.shapes import Allowed, Array, Tile


class _Scored(NamedTuple):
    """The logits of the whole, and what the product with the values needs."""

    logits: Tile
    tile: Inputs
    indices: TileIndices
    allowed: Allowed | None
    masked_nonfinite: MaskedNonfinite


def attention_weights(inputs: Inputs, after_dropout: bool = False) -> Tile:
    """`[B, K, R, T, S]`; a query that may attend to no key has weights 0."""
    return _weights(inputs, _scored(inputs), after_dropout)


def attention(inputs: Inputs) -> Array:
    """The weighted sum of the values, `[B, K, R, T, V]`; 0 for a query that may attend to no key."""
    return _output(inputs, _scored(inputs))


def attention_with_lse(inputs: Inputs) -> tuple[Array, Array]:
    """The output and the log-sum-exp `[B, K, R, T]` of the keys alone, without the sink; −inf for a query without a key."""
    scored = _scored(inputs)
    empty = jnp.all(scored.logits == -jnp.inf, axis=-1)
    lse = jax.nn.logsumexp(jnp.where(empty[..., None], 0, scored.logits), axis=-1)  # of no numbers it has no derivative
    return _output(inputs, scored), jnp.where(empty, -jnp.inf, lse)


def _scored(inputs: Inputs) -> _Scored:
    tile, indices = slice_tile(inputs, Offset(), full_block(inputs))
    allowed = tile_mask(inputs, tile, indices)
    masked_nonfinite = find_masked_nonfinite(inputs)
    return _Scored(tile_logits(tile, indices, allowed, masked_nonfinite), tile, indices, allowed, masked_nonfinite)


def _weights(inputs: Inputs, scored: _Scored, after_dropout: bool) -> Tile:
    sink = None if inputs.sink is None else inputs.sink[None, :, :, None, None].astype(scored.logits.dtype)
    weights = normalize(inputs.normalizer, scored.logits, sink)
    return apply_dropout(inputs, scored.indices, weights) if after_dropout else weights


def _output(inputs: Inputs, scored: _Scored) -> Array:
    weights = _weights(inputs, scored, after_dropout=True)
    value, allowed, masked_nonfinite = scored.tile.value, scored.allowed, scored.masked_nonfinite
    return contract("bkrtc", "bkrts", weights, "bksc", value, allowed, masked_nonfinite)
