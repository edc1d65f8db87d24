"""The slice of each array that belongs to a tile."""

import dataclasses

import jax.numpy as jnp
from jax import lax

from attn.kernels.inputs import Inputs
from attn.kernels.tiles.indices import TileIndices
from attn.kernels.tiles.tiling import Block, Offset, full_block, shares
from attn.shapes import Array

Shape = tuple[int, ...]

# The leading axes of each array that is sliced: b batch, k key/value heads, r query heads of one of these, t queries, s keys.
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


def pad_to_blocks(inputs: Inputs, block: Block) -> Inputs:
    """Pads queries and keys to multiples of the block with copies of the last one. The padded keys are masked.

    Copies rather than zeros, since a score or a score_mod may have no finite gradient at zeros or outside of its table.
    """
    size = full_block(inputs)
    sides = {"t": (size.query, block.query), "s": (size.key, block.key)}
    missing = {axis: 0 if tile == length else -length % tile for axis, (length, tile) in sides.items()}

    def padded(array: Array, axes: str) -> Array:
        for index, (axis, n) in enumerate(zip(axes, array.shape, strict=False)):
            if missing.get(axis) and n != 1:
                last = lax.slice_in_dim(array, n - 1, n, axis=index)
                copies = jnp.broadcast_to(last, (*array.shape[:index], missing[axis], *array.shape[index + 1 :]))
                array = jnp.concatenate([array, copies], axis=index)
        return array

    if not any(missing.values()):
        return inputs
    arrays = {name: padded(array, axes) for name, axes in _AXES.items() if (array := getattr(inputs, name)) is not None}
    return dataclasses.replace(inputs, **arrays, unpadded=(size.query, size.key))


def slice_tile(inputs: Inputs, offset: Offset, block: Block) -> tuple[Inputs, TileIndices]:
    """The inputs of one tile, in the dtype of the computation, and its indices."""
    slices = {
        name: slice_array(array, axes, offset, block)
        for name, axes in _AXES.items()
        if (array := getattr(inputs, name)) is not None
    }
    for name in ("query", "key", "value", "bias"):
        if name in slices:
            slices[name] = slices[name].astype(inputs.dtype)
    size, repeats = full_block(inputs), inputs.query.shape[2]
    of_key_head = jnp.arange(repeats, dtype=jnp.int32)
    query = offset.query + jnp.arange(block.query, dtype=jnp.int32)
    key = offset.key + jnp.arange(block.key, dtype=jnp.int32)
    queries, keys = inputs.unpadded or (inputs.query.shape[3], inputs.key.shape[2])
    indices = TileIndices(
        batch=_spread(offset.batch, size.batch, block.batch, block.devices),
        head=_spread(offset.heads, size.heads, block.heads, block.devices)[:, None] * repeats + of_key_head[None],
        query=query,
        key=key,
        query_position=slices.get("query_positions", jnp.minimum(query, queries - 1)[None] + inputs.query_offset),
        key_position=slices.get("key_positions", jnp.minimum(key, keys - 1)[None]),
    )
    return dataclasses.replace(inputs, **slices), indices


def slice_array(array: Array, axes: str, offset: Offset, block: Block) -> Array:
    """The slice of an array whose leading axes are `axes`; an axis of size 1 is shared by all tiles."""
    size = {"b": block.batch, "k": block.heads, "t": block.query, "s": block.key}
    leading = [n if n == 1 else size.get(axis, n) for axis, n in zip(axes, array.shape, strict=False)]
    tile = (*leading, *array.shape[len(axes) :])
    if tile == array.shape:
        return array
    starts, sizes = _extent(array.shape, axes, offset, block)
    return lax.dynamic_slice(array.reshape(split_shape(array.shape, axes, block)), starts, sizes).reshape(tile)


def update_slice(array: Array, axes: str, update: Array, offset: Offset, block: Block) -> Array:
    """The array with a tile's slice replaced."""
    if update.shape == array.shape:
        return update
    starts, sizes = _extent(array.shape, axes, offset, block)
    split = array.reshape(split_shape(array.shape, axes, block))
    return lax.dynamic_update_slice(split, update.reshape(sizes), starts).reshape(array.shape)


def split_shape(shape: Shape, axes: str, block: Block) -> Shape:
    """The shape in which a tile is a slice: an axis of examples or heads becomes three, parts × tiles × neighbours."""
    split: list[int] = []
    for axis, n in zip(axes.ljust(len(shape)), shape, strict=True):
        parts, tile = _parts(axis, n, block)
        if tile != n:
            split += [parts, n // tile, tile // parts]
        else:
            split.append(n)
    return tuple(split)


def _extent(shape: Shape, axes: str, offset: Offset, block: Block) -> tuple[list[Array], Shape]:
    """Where a tile starts in an array of `split_shape`, and its sizes there."""
    starts, sizes = [], []
    for axis, n in zip(axes.ljust(len(shape)), shape, strict=True):
        parts, tile = _parts(axis, n, block)
        if tile != n:
            starts += [0, offset.batch if axis == "b" else offset.heads, 0]
            sizes += [parts, 1, tile // parts]
        else:
            start, size = {"t": (offset.query, block.query), "s": (offset.key, block.key)}.get(axis, (0, n))
            starts.append(0 if n == 1 else start)
            sizes.append(1 if n == 1 else size)
    return [jnp.int32(start) for start in starts], tuple(sizes)


def _parts(axis: str, size: int, block: Block) -> tuple[int, int]:
    """How many equal parts an axis of examples or heads has (see `Block`), and how many of its entries a tile holds."""
    tile = size if size == 1 else {"b": block.batch, "k": block.heads}.get(axis, size)
    return shares(size, block.devices), tile


def _spread(number: int | Array, total: int, tile: int, devices: int) -> Array:
    """The indices, of `total` examples or heads, that the tile with this number holds."""
    parts = 1 if tile == total else shares(total, devices)
    first = jnp.arange(parts, dtype=jnp.int32) * (total // parts) + number * (tile // parts)
    return (first[:, None] + jnp.arange(tile // parts, dtype=jnp.int32)[None]).reshape(tile)
