"""One tile: the logits of some queries and some keys. Every implementation is made of it, so all of them mean the same.

score · scale → score_mod → + bias → masks
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attn.arguments import Arguments
from attn.dropout import keep
from attn.places import Where, at_places
from attn.shapes import Allowed, Array, Tile

# The leading axes of each array that is cut: b batch, k key/value heads, r query heads of one of these, t queries, s keys.
_AXES = {
    "query": "bkrt",
    "key": "bks",
    "value": "bks",
    "bias": "bkrts",
    "mask": "bkrts",
    "query_lengths": "b",
    "key_lengths": "b",
    "query_segments": "bt",
    "key_segments": "bs",
    "query_positions": "bt",
    "key_positions": "bs",
}


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


def _varying(array: Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    return jax.typeof(array).manual_axis_type.varying


def _largest_divisor(number: int, limit: int) -> int:
    return next((n for n in range(min(number, limit), 1, -1) if number % n == 0), 1)


def part(array: Array, axes: str, corner: Corner, block: Block) -> Array:
    """The tile's part of an array whose leading axes are `axes`; an axis of size 1 serves every tile."""
    starts, sizes = _extent(array, axes, corner, block)
    return lax.dynamic_slice(array, starts, sizes) if sizes != array.shape else array


def put(array: Array, axes: str, corner: Corner, update: Array) -> Array:
    """The array with a tile's part replaced."""
    if update.shape == array.shape:
        return update
    starts, _ = _extent(array, axes, corner, Block(0, 0, 0, 0))
    return lax.dynamic_update_slice(array, update, starts)


def vary(tree: Any, like: Any) -> Any:
    """The arrays, varying over those axes of a surrounding `jax.shard_map` that any array of `like` varies over.

    A loop's state must have one type, and what it adds up over shards has to be cast where autodiff sees it.
    """
    axes = frozenset().union(*(_varying(x) for x in jax.tree.leaves(like)))

    def cast(array: Array) -> Array:
        missing = tuple(axes - _varying(array))
        return lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(cast, tree) if axes else tree


def pad(arguments: Arguments, block: Block) -> Arguments:
    """Queries and keys up to a multiple of the block's, with copies of the last. Nobody attends to a padded key.

    Copies, since a score or score_mod may have no finite gradient at zeros or outside of its table.
    """
    size = whole(arguments)
    more = {"t": -size.query % block.query, "s": -size.key % block.key}

    def padded(array: Array, axes: str) -> Array:
        full = {"t": size.query, "s": size.key}
        ends = [(0, more[axis] if full.get(axis) == n and n > 1 else 0) for axis, n in zip(axes, array.shape, strict=False)]
        return jnp.pad(array, [*ends, *((0, 0) for _ in array.shape[len(axes) :])], mode="edge")

    if not any(more.values()):
        return arguments
    arrays = {name: padded(array, axes) for name, axes in _AXES.items() if (array := getattr(arguments, name)) is not None}
    return dataclasses.replace(arguments, **arrays, unpadded=(size.query, size.key))


def cut(arguments: Arguments, corner: Corner, block: Block) -> tuple[Arguments, Where]:
    """The tile's part of the arguments, in the dtype of the computation, and where it is."""
    parts = {
        name: part(array, axes, corner, block)
        for name, axes in _AXES.items()
        if (array := getattr(arguments, name)) is not None
    }
    for name in ("query", "key", "value", "bias"):
        if name in parts:
            parts[name] = parts[name].astype(arguments.dtype)
    repeats = arguments.query.shape[2]
    query = corner.query + jnp.arange(block.query, dtype=jnp.int32)
    key = corner.key + jnp.arange(block.key, dtype=jnp.int32)
    queries, keys = arguments.unpadded or (arguments.query.shape[3], arguments.key.shape[2])
    where = Where(
        batch=corner.batch + jnp.arange(block.batch, dtype=jnp.int32),
        head=(corner.heads * repeats + jnp.arange(block.heads * repeats, dtype=jnp.int32)).reshape(block.heads, repeats),
        query=query,
        key=key,
        query_position=parts.get("query_positions", jnp.minimum(query, queries - 1)[None] + arguments.query_offset),
        key_position=parts.get("key_positions", jnp.minimum(key, keys - 1)[None]),
    )
    return dataclasses.replace(arguments, **parts), where


def scores(tile: Arguments, allowed: Allowed | None, careful: Array | None) -> Tile:
    """score · scale of every query and key of the tile."""
    if tile.score is None:
        return contract("bkrts", "bkrtc", tile.query, "bksc", tile.key, allowed, careful)
    program, captured = tile.score, tile.score_captured

    def score(query: Array, key: Array, *may: Array) -> Array:
        if may:  # 0 · f'(NaN) would be NaN in the gradients
            query, key = (jnp.where(may[0] | jnp.isfinite(x), x, 0) for x in (query, key))
        return program(captured, query, key)

    may = () if allowed is None else (jnp.broadcast_to(allowed, (*tile.query.shape[:4], tile.key.shape[2])),)
    for axes in ((None, 0), (0, None), (0, None), (0, 0), (0, 0)):  # over s, t, r, k, b
        score = jax.vmap(score, in_axes=(*axes, *(0 for _ in may)))
    result = score(tile.query, tile.key, *may).astype(tile.dtype)
    return result if tile.score_scale is None else result * tile.score_scale.astype(tile.dtype)


def modify(tile: Arguments, where: Where, scores: Tile, allowed: Allowed | None) -> Tile:
    """score_mod, then the bias."""
    if tile.score_mod is not None:
        scores = scores if allowed is None else jnp.where(allowed, scores, 0)  # what is masked may be NaN, and its slope too
        scores = at_places(tile.score_mod, tile.score_mod_captured, where, scores).astype(scores.dtype)
    return scores if tile.bias is None else scores + tile.bias


def mask(logits: Tile, allowed: Allowed | None) -> Tile:
    return logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)


def logits(tile: Arguments, where: Where, allowed: Allowed | None, careful: Array | None) -> Tile:
    """What the normaliser gets: −inf where masked."""
    return mask(modify(tile, where, scores(tile, allowed, careful), allowed), allowed)


def kept(tile: Arguments, where: Where) -> Array | None:
    """Inverted dropout as a factor: 1 / (1 − rate) for a weight that stays, else 0. None without dropout."""
    if tile.rng is None or tile.index_offset is None:
        return None
    batch, head = where.batch + tile.index_offset[0], where.head + tile.index_offset[1]
    places = batch[:, None, None, None, None], head[None, :, :, None, None], where.query[:, None], where.key
    return jnp.where(keep(tile.rng, tile.dropout_rate, *places), jnp.asarray(1 / (1 - tile.dropout_rate), tile.dtype), 0)


def drop(tile: Arguments, where: Where, weights: Tile) -> Tile:
    factor = kept(tile, where)
    return weights if factor is None else weights * factor


def contract(out: str, left_axes: str, left: Array, right_axes: str, right: Array, allowed: Allowed | None, careful) -> Array:
    """einsum(left, right) to the axes `out`, over the pairs of query and key that are allowed.

    An array `[.., t, s]` is 0 at the other pairs, but 0 · NaN is NaN: where `careful` is true the product is made pair by pair.
    """

    def plain(left: Array, right: Array) -> Array:
        return jnp.einsum(f"{left_axes},{right_axes}->{out}", left, right)

    if allowed is None or careful is None:
        return plain(left, right)

    @jax.checkpoint
    def by_pair(left: Array, right: Array) -> Array:
        factors = (_expand(left, left_axes), _expand(right, right_axes))
        # The factors, not the product: its gradient would hold 0 · NaN.
        left, right = (jnp.where(allowed[..., None], factor, 0) for factor in factors)
        return jnp.einsum(f"bkrtsc->{out}", left * right)

    return lax.cond(careful, by_pair, plain, left, right)


def careful(arguments: Arguments, *more: Array) -> Array | None:
    """Whether products must be taken pair by pair: something is masked, and something is NaN or Inf. None: never."""
    if not arguments.masked:
        return None
    arrays = (arguments.query, arguments.key, arguments.value, *more)
    return any_nonfinite([lax.stop_gradient(array) for array in arrays])


@jax.custom_batching.custom_vmap
def any_nonfinite(arrays: Sequence[Array]) -> Array:
    """Whether anything is NaN or Inf. One answer for all of a batch, under `vmap` too, so that `lax.cond` stays a branch."""
    return jnp.any(jnp.stack([~jnp.all(jnp.isfinite(array)) for array in arrays]))


@any_nonfinite.def_vmap
def _(axis_size: int, batched: Sequence[bool], arrays: Sequence[Array]) -> tuple[Array, bool]:
    del axis_size, batched
    return any_nonfinite(arrays), False


def _expand(array: Array, axes: str) -> Array:
    """The array with size 1 for each missing axis of "bkrtsc"."""
    order = sorted(range(len(axes)), key=lambda i: "bkrtsc".index(axes[i]))
    missing = [i for i, axis in enumerate("bkrtsc") if axis not in axes]
    return jnp.expand_dims(jnp.transpose(array, order), missing)


def _extent(array: Array, axes: str, corner: Corner, block: Block) -> tuple[list, tuple[int, ...]]:
    start = {"b": corner.batch, "k": corner.heads, "t": corner.query, "s": corner.key}
    size = {"b": block.batch, "k": block.heads, "t": block.query, "s": block.key}
    starts = [start.get(axis, 0) if n > 1 else 0 for axis, n in zip(axes, array.shape, strict=False)]
    sizes = [n if n == 1 else size.get(axis, n) for axis, n in zip(axes, array.shape, strict=False)]
    rest = array.shape[len(axes) :]
    return [jnp.int32(n) for n in (*starts, *(0 for _ in rest))], (*sizes, *rest)
