"""Who may attend to whom, made for a tile of some queries and some keys. True always means: may attend."""

import functools
import operator

import numpy as np

from attn.arguments import Arguments
from attn.places import Where, at_places
from attn.shapes import Allowed, Array, Mask, Valid


def attendable_keys(valid: Valid) -> Mask:
    """`[*B, S]` of real keys as a mask `[*B, 1, 1, S]` for every head and every query."""
    return valid[..., None, None, :]


def merge(*masks: Array | None) -> Array | None:
    """The masks all together, of any shapes that broadcast; None where there is none."""
    given = [mask for mask in masks if mask is not None]
    return functools.reduce(operator.and_, given) if given else None


def in_band(distance, window: tuple[int | None, int | None]):
    """Whether a key whose position less the query's is `distance` may be attended. `window` is inclusive."""
    left, right = window
    inside = [] if left is None else [distance >= -left]
    inside += [] if right is None else [distance <= right]
    return functools.reduce(operator.and_, inside)


def allowed(arguments: Arguments, cut: Arguments, where: Where) -> Allowed | None:
    """The masks of a tile all together, or None where every query of it may attend to every key.

    `cut` holds the parts of `arguments` that are the tile's.
    """
    conditions = [] if cut.mask is None else [cut.mask]
    if cut.query_lengths is not None:
        conditions.append(_queries(where.query[None] < cut.query_lengths[:, None]))
    if cut.key_lengths is not None:
        conditions.append(_keys(where.key[None] < cut.key_lengths[:, None]))
    if arguments.unpadded is not None and arguments.keys_are_padded:
        conditions.append(_keys(where.key[None] < arguments.unpadded[1]))
    if cut.query_segments is not None and cut.key_segments is not None:
        conditions.append(_queries(cut.query_segments) == _keys(cut.key_segments))
    if arguments.banded:
        distance = _keys(where.key_position) - _queries(where.query_position)
        conditions.append(in_band(distance, arguments.window))
    if arguments.mask_mod is not None:
        conditions.append(at_places(arguments.mask_mod, arguments.mask_mod_captured, where))
    return merge(*conditions)


def tiles_in_band(arguments: Arguments, queries: int, keys: int, query_block: int, key_block: int) -> np.ndarray:
    """`[n, 2]` int32: (query block, key block) of each tile that causality and the window leave anything of."""
    rows, columns = np.mgrid[: queries // query_block, : keys // key_block].reshape(2, -1)
    kept = np.ones(rows.shape, bool)
    if arguments.banded and not arguments.positioned:
        first_query = rows * query_block + arguments.query_offset
        first_key = columns * key_block
        nearest = [first_key - (first_query + query_block - 1), first_key + key_block - 1 - first_query]  # distances
        left, right = arguments.window
        kept &= True if right is None else nearest[0] <= right
        kept &= True if left is None else nearest[1] >= -left
    return np.stack([rows[kept], columns[kept]], axis=-1).astype(np.int32)


def _queries(array: Array) -> Array:
    return array[:, None, None, :, None]


def _keys(array: Array) -> Array:
    return array[:, None, None, None, :]
