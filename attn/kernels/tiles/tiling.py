"""How large a tile is, where it starts, and which tiles a mask by position leaves."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jax.export import is_symbolic_dim

from attn._validation import as_int
from attn.kernels.inputs import Inputs
from attn.shapes import Array


class Block(NamedTuple):
    """The size of a tile along each axis: examples, key/value heads, queries, keys.

    An axis of examples or heads, which may be sharded over `devices`, has gcd(its size, devices) equal parts. Each tile holds
    the same number of neighbours from each part, so that each device holds an equal share of each tile.
    """

    batch: int
    heads: int
    query: int
    key: int
    devices: int = 1


class Offset(NamedTuple):
    """Which tile: its number along batch and heads, and its first query and key."""

    batch: int | Array = 0
    heads: int | Array = 0
    query: int | Array = 0
    key: int | Array = 0


def full_block(inputs: Inputs) -> Block:
    """The block of a single tile that holds everything."""
    batch, heads, _, queries, _ = inputs.query.shape
    return Block(batch, heads, queries, inputs.key.shape[2], inputs.devices)


def choose_block(inputs: Inputs, block: int | tuple[int, int] | None) -> Block:
    """The numbers of queries and keys that the caller asked for, or a measured choice, and examples and heads to fill a tile.

    An axis of a size that `jax.export` does not know is not cut; where that is T or S, everything is one tile.

    Raises:
      ValueError: `block` is neither an int of at least 1 nor two of them, or is given for lengths that are not known.
    """
    size, repeats = full_block(inputs), inputs.query.shape[2]
    if is_symbolic_dim(size.query) or is_symbolic_dim(size.key):
        if block is not None:
            raise ValueError(f"block={block!r} needs lengths that are known: these are {size.query} and {size.key}")
        return size
    least_batch, least_heads = shares(size.batch, inputs.devices), shares(size.heads, inputs.devices)
    if block is None:
        smaller = math.isqrt(max(1, least_batch * least_heads // inputs.devices))
        sides = (max(16, side // smaller) for side in _default_sides(inputs, repeats))
        query, key = map(_balanced, (size.query, size.key), sides)
    else:
        sides = [side for x in (block if isinstance(block, tuple) else (block, block)) if (side := as_int(x)) and side >= 1]
        if len(sides) != 2 or (isinstance(block, tuple) and len(block) != 2):
            raise ValueError(f"block={block!r} must be one int of at least 1, or two: queries and keys in a tile")
        query, key = (max(1, min(side, length)) for side, length in zip(sides, (size.query, size.key), strict=True))
    scores = 2**17 if jax.default_backend() == "cpu" else 2**24  # in a tile; half a MiB stays in the cache of a CPU core
    room = max(1, scores // (query * key * repeats))
    heads = least_heads * _largest_divisor(size.heads // least_heads, room // least_heads)
    if is_symbolic_dim(size.batch):
        return size._replace(heads=heads, query=query, key=key)
    batch = least_batch * _largest_divisor(size.batch // least_batch, room // heads)
    return Block(batch, heads, query, key, inputs.devices)


def shares(size: int, devices: int) -> int:
    """Into how many equal parts an axis of examples or heads is cut, see `Block`; 1 for a size that is not known."""
    return 1 if is_symbolic_dim(size) else math.gcd(size, devices)


def tiles_in_band(inputs: Inputs, queries: int, keys: int, query_block: int, key_block: int) -> np.ndarray:
    """`[n, 2]` int32: (query block, key block) of each tile in which causality and the window leave at least one pair."""
    rows, columns = np.mgrid[: queries // query_block, : keys // key_block].reshape(2, -1)
    inside = np.ones(rows.shape, bool)
    if len(rows) > 1 and inputs.has_band and not inputs.has_positions:
        first_query = rows * query_block + inputs.query_offset
        first_key = columns * key_block
        # The smallest and the largest distance from a query to a key in the tile.
        smallest, largest = first_key - (first_query + query_block - 1), first_key + key_block - 1 - first_query
        left, right = inputs.window
        inside &= True if right is None else smallest <= right
        inside &= True if left is None else largest >= -left
    return np.stack([rows[inside], columns[inside]], axis=-1).astype(np.int32)


def _default_sides(inputs: Inputs, repeats: int) -> tuple[int, int]:
    """The most queries and keys in a tile. Measured on AVX2 cores in float32, for T from 256 to 8,192."""
    if inputs.score is not None:  # a pairwise score holds H numbers for each pair
        side = max(16, 2 ** int(math.log2(2**10 / math.sqrt(repeats * inputs.query.shape[4]))))
        return side, side
    if jax.default_backend() != "cpu":
        return 1_024, 1_024
    left, right = inputs.window
    if left is not None and right is not None and left + right <= 512:
        return max(32, 128 // repeats), 128  # small tiles waste less outside of a narrow band
    return max(32, 512 // repeats), 256


def _balanced(length: int, side: int) -> int:
    """The side of equal tiles, at most `side`, with the least padding; a multiple of 8 where there are several tiles."""
    tiles = max(1, -(-length // side))
    return max(1, length) if tiles == 1 else min(side, -(-length // (8 * tiles)) * 8)


def _largest_divisor(number: int, limit: int) -> int:
    return next((n for n in range(min(number, limit), 1, -1) if number % n == 0), 1)
