"""The indices and positions of the rows and columns of a tile, and functions of them."""

from typing import NamedTuple

import jax

from attn.kernels.closures import Program
from attn.shapes import Array, Tile


class TileIndices(NamedTuple):
    """Indices of a tile's examples, heads, queries and keys in the whole arrays, and the positions of its queries and keys."""

    batch: Array  # [B]
    head: Array  # [K, R]
    query: Array  # [T]
    key: Array  # [S]
    query_position: Array  # [B|1, T]
    key_position: Array  # [B|1, S]


def evaluate_mod(program: Program, captured: tuple[Array, ...], indices: TileIndices, *scores: Tile) -> Array:
    """A `score_mod` or `mask_mod` for every pair of a tile `[B, K, R, T, S]`.

    An axis along which the result does not vary is not materialised.
    """

    def call(*arguments):
        return program(captured, *arguments)

    score = (0,) * len(scores)
    positions = indices.query_position, indices.key_position
    batched = [0 if position.shape[0] != 1 else None for position in positions]
    query, key = (position if axis == 0 else position[0] for position, axis in zip(positions, batched, strict=True))
    for axes in (
        (None, None, None, 0),
        (None, None, 0, None),
        (None, 0, None, None),
        (None, 0, None, None),
        (0, None, *batched),
    ):
        call = jax.vmap(call, in_axes=(*score, *axes))
    return call(*scores, indices.batch, indices.head, query, key)
