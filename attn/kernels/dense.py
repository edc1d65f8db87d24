"""The definition: a single tile that holds everything, so that the weights are an array.

normalize(score(q, k) …) v, as in Vaswani et al. 2017, section 3.2.1. Plain `jax.numpy`, so every JAX transform works, and
memory is O(T · S).
"""

from attn.kernels.inputs import Inputs
from attn.kernels.tiles.dropout import apply_dropout
from attn.kernels.tiles.logits import tile_logits
from attn.kernels.tiles.mask import tile_mask
from attn.kernels.tiles.products import contract, find_masked_nonfinite
from attn.kernels.tiles.slices import slice_tile
from attn.kernels.tiles.tiling import Offset, full_block
from attn.normalizers import normalize
from attn.shapes import Array, Tile


def attention_weights(inputs: Inputs, after_dropout: bool = False) -> Tile:
    """`[B, K, R, T, S]`; a query that may attend to no key has weights 0."""
    weights, _, indices, *_ = _weights(inputs)
    return apply_dropout(inputs, indices, weights) if after_dropout else weights


def attention(inputs: Inputs) -> Array:
    """The weighted sum of the values, `[B, K, R, T, V]`; 0 for a query that may attend to no key."""
    weights, tile, indices, allowed, masked_nonfinite = _weights(inputs)
    weights = apply_dropout(inputs, indices, weights)
    return contract("bkrtc", "bkrts", weights, "bksc", tile.value, allowed, masked_nonfinite)


def _weights(inputs: Inputs):
    tile, indices = slice_tile(inputs, Offset(), full_block(inputs))
    allowed = tile_mask(inputs, tile, indices)
    masked_nonfinite = find_masked_nonfinite(inputs)
    logits = tile_logits(tile, indices, allowed, masked_nonfinite)
    sink = None if inputs.sink is None else inputs.sink[None, :, :, None, None].astype(logits.dtype)
    return normalize(inputs.normalizer, logits, sink), tile, indices, allowed, masked_nonfinite
