"""How many queries and keys one tile holds."""

import math
from typing import NamedTuple

import jax

from attn.arguments import Arguments
from attn.shapes import Array


class Block(NamedTuple):
    """How much of each axis one tile holds: examples, key/value heads, queries, keys."""

    batch: int
    heads: int
    query: int
    key: int


class Corner(NamedTuple):
    """Where a tile begins on each of these axes."""

    batch: int | Array = 0
    heads: int | Array = 0
    query: int | Array = 0
    key: int | Array = 0


def whole(arguments: Arguments) -> Block:
    batch, heads, _, queries, _ = arguments.query.shape
    return Block(batch, heads, queries, arguments.key.shape[2])


def choose_block(arguments: Arguments, block: int | tuple[int, int] | None) -> Block:
    """The caller's queries and keys in a tile, or ours, and as many heads and examples as make a tile worth its while."""
    size, repeats = whole(arguments), arguments.query.shape[2]
    if block is None:
        query, key = map(_even, (size.query, size.key), _sides(arguments, repeats))
    else:
        sides = block if isinstance(block, tuple) else (block, block)
        if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
            raise ValueError(f"block={block!r} must be one int of at least 1, or two: queries and keys in a tile")
        query, key = (max(1, min(side, length)) for side, length in zip(sides, (size.query, size.key), strict=True))
    scores = 2**17 if jax.default_backend() == "cpu" else 2**24  # in a tile: half a MiB stays in a core's cache
    room = max(1, scores // (query * key * repeats))
    heads = _largest_divisor(size.heads, room)
    return Block(_largest_divisor(size.batch, room // heads), heads, query, key)


def _sides(arguments: Arguments, repeats: int) -> tuple[int, int]:
    """Queries and keys in a tile, at most. Measured on AVX2 cores in float32, for T from 256 to 8,192."""
    if arguments.score is not None:  # a pairwise score holds H numbers a pair
        side = max(16, 2 ** int(math.log2(2**10 / math.sqrt(repeats * arguments.query.shape[4]))))
        return side, side
    if jax.default_backend() != "cpu":
        return 1_024, 1_024
    left, right = arguments.window
    if left is not None and right is not None and left + right <= 512:
        return max(32, 128 // repeats), 128  # a narrow band wastes less of small tiles
    return max(32, 512 // repeats), 256


def _even(length: int, side: int) -> int:
    """The side of equal tiles, at most `side`, that pad the length least; a multiple of 8 where there are several."""
    tiles = max(1, -(-length // side))
    return max(1, length) if tiles == 1 else min(side, -(-length // (8 * tiles)) * 8)


def _largest_divisor(number: int, limit: int) -> int:
    return next((n for n in range(min(number, limit), 1, -1) if number % n == 0), 1)
