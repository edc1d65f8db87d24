"""The definition: one tile that holds everything, where the weights are an array you can look at.

normalize(score(q, k) …) v, as in Vaswani et al. 2017, section 3.2.1. Plain `jax.numpy`, so every JAX transform works, and
memory is O(T · S).
"""

from attn import blocks, masks, parts, tiles
from attn.arguments import Arguments
from attn.blocks import Corner
from attn.normalizers import normalize
from attn.shapes import Array, Tile


def attention_weights(arguments: Arguments, after_dropout: bool = False) -> Tile:
    """`[B, K, R, T, S]`; a query that may attend to no key has weights 0."""
    weights, _, where, *_ = _weights(arguments)
    return tiles.drop(arguments, where, weights) if after_dropout else weights


def attention(arguments: Arguments) -> Array:
    """The weighted sum of the values, `[B, K, R, T, V]`; a query that may attend to no key gets 0."""
    weights, tile, where, allowed, careful = _weights(arguments)
    weights = tiles.drop(arguments, where, weights)
    return tiles.contract("bkrtc", "bkrts", weights, "bksc", tile.value, allowed, careful)


def _weights(arguments: Arguments):
    tile, where = parts.cut(arguments, Corner(), blocks.whole(arguments))
    allowed = masks.allowed(arguments, tile, where)
    careful = tiles.careful(arguments)
    logits = tiles.logits(tile, where, allowed, careful)
    sink = None if arguments.sink is None else arguments.sink[:, :, None, None].astype(logits.dtype)
    return normalize(arguments.normalizer, logits, sink), tile, where, allowed, careful
