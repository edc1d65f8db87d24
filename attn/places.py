"""Where a tile of the scores is, and functions of the place."""

from typing import NamedTuple

import jax

from attn.shapes import Array, Tile
from attn.traced import Program


class Where(NamedTuple):
    """Which batch rows, heads, queries and keys a tile is of: indices into the whole, and the positions that they have."""

    batch: Array  # [B]
    head: Array  # [K, R]
    query: Array  # [T]
    key: Array  # [S]
    query_position: Array  # [B|1, T]
    key_position: Array  # [B|1, S]


def at_places(program: Program, captured: tuple[Array, ...], where: Where, *scores: Tile) -> Array:
    """A `score_mod` or `mask_mod` at every place of a tile `[B, K, R, T, S]`; what is the same along an axis is not copied."""

    def call(*arguments):
        return program(captured, *arguments)

    score = (0,) * len(scores)
    batched = [0 if position.shape[0] > 1 else None for position in (where.query_position, where.key_position)]
    query, key = (p if b == 0 else p[0] for p, b in zip((where.query_position, where.key_position), batched, strict=True))
    for axes in (
        (None, None, None, 0),
        (None, None, 0, None),
        (None, 0, None, None),
        (None, 0, None, None),
        (0, None, *batched),
    ):
        call = jax.vmap(call, in_axes=(*score, *axes))
    return call(*scores, where.batch, where.head, query, key)
