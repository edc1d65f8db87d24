"""The part of each array that a tile holds, and the loop that visits the tiles."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from attn import blocks, masks
from attn.arguments import Arguments
from attn.blocks import Block, Corner
from attn.places import Where
from attn.shapes import Allowed, Array
from attn.traced import vary

State = TypeVar("State")

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


def pad(arguments: Arguments, block: Block) -> Arguments:
    """Queries and keys up to a multiple of the block's, with copies of the last. Nobody attends to a padded key.

    Copies, since a score or score_mod may have no finite gradient at zeros or outside of its table.
    """
    size = blocks.whole(arguments)
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


def each_tile(arguments: Arguments, block: Block, visit: Callable[[State, Corner], State], state: State) -> State:
    """The state after a visit to each tile that causality and the window leave anything of."""
    size = blocks.whole(arguments)
    pairs = masks.tiles_in_band(arguments, size.query, size.key, block.query, block.key)
    head_groups = size.heads // block.heads
    groups = (size.batch // block.batch) * head_groups

    def step(state: State, index: Array) -> tuple[State, None]:
        group, pair = index // len(pairs), index % len(pairs)
        query, key = jnp.asarray(pairs)[pair]
        corner = Corner(
            group // head_groups * block.batch, group % head_groups * block.heads, query * block.query, key * block.key
        )
        return visit(state, corner), None

    state = vary(state, arguments)
    if groups * len(pairs) == 1:  # a loop of one keeps XLA from fusing across it
        query, key = pairs[0].tolist()
        return visit(state, Corner(query=query * block.query, key=key * block.key))
    return lax.scan(step, state, jnp.arange(groups * len(pairs), dtype=jnp.int32))[0]


def unless_empty(allowed: Allowed | None, compute: Callable[[], State], otherwise: State | None = None) -> State:
    """What `compute` gives, or where no query of the tile may attend to a key of it, the other at once (None: zeros)."""
    if allowed is None:
        return compute()
    if otherwise is None:
        shapes = jax.eval_shape(compute)
        otherwise = vary(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), shapes)
    return lax.cond(jnp.any(allowed), compute, lambda: otherwise)


def _extent(array: Array, axes: str, corner: Corner, block: Block) -> tuple[list, tuple[int, ...]]:
    start = {"b": corner.batch, "k": corner.heads, "t": corner.query, "s": corner.key}
    size = {"b": block.batch, "k": block.heads, "t": block.query, "s": block.key}
    starts = [start.get(axis, 0) if n > 1 else 0 for axis, n in zip(axes, array.shape, strict=False)]
    sizes = [n if n == 1 else size.get(axis, n) for axis, n in zip(axes, array.shape, strict=False)]
    rest = array.shape[len(axes) :]
    return [jnp.int32(n) for n in (*starts, *(0 for _ in rest))], (*sizes, *rest)
