"""Dropout of the weights of one tile."""

import jax.numpy as jnp

from attn.dropout import keep
from attn.kernels.inputs import Inputs
from attn.kernels.tiles.indices import TileIndices
from attn.shapes import Array, Tile


def dropout_factor(tile: Inputs, indices: TileIndices) -> Array | None:
    """Inverted dropout: 1 / (1 − rate) for a weight that is kept, otherwise 0. None without dropout."""
    if tile.rng is None or tile.index_offset is None:
        return None
    batch, head = indices.batch + tile.index_offset[0], indices.head + tile.index_offset[1]
    rows, columns = indices.query[None, None, None, :, None], indices.key[None, None, None, None]
    kept = keep(tile.rng, tile.dropout_rate, batch[:, None, None, None, None], head[None, :, :, None, None], rows, columns)
    return jnp.where(kept, jnp.asarray(1 / (1 - tile.dropout_rate), tile.dtype), 0)


def apply_dropout(tile: Inputs, indices: TileIndices, weights: Tile) -> Tile:
    factor = dropout_factor(tile, indices)
    return weights if factor is None else weights * factor
