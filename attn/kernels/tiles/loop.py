"""The loop over the tiles of the scores."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from attn.kernels.inputs import Inputs
from attn.kernels.manual_axes import match_varying
from attn.kernels.tiles.slices import slice_array, split_shape, update_slice
from attn.kernels.tiles.tiling import Block, Offset, full_block, tiles_in_band
from attn.shapes import Allowed, Array

State = TypeVar("State", bound=tuple)


def for_each_tile(
    inputs: Inputs, block: Block, visit: Callable[[State, Offset], State], state: State, axes: Sequence[str]
) -> State:
    """The state after a visit to each tile in which causality and the window leave at least one pair.

    Args:
      inputs: padded to multiples of the block.
      block: the size of a tile.
      visit: takes the slices of the state that belong to a tile, and the tile's offset, and returns the new slices.
      state: a tuple of pytrees of arrays.
      axes: the leading axes of the arrays in each entry of the state, as in `slice_array`; "" for what all tiles share.
    """
    size = full_block(inputs)
    pairs = tiles_in_band(inputs, size.query, size.key, block.query, block.key)
    head_groups = size.heads // block.heads
    groups = (size.batch // block.batch) * head_groups
    arrays, tree = jax.tree.flatten(match_varying(state, inputs))
    letters = [name for entry, name in zip(state, axes, strict=True) for _ in jax.tree.leaves(entry)]

    def visit_at(arrays: list[Array], offset: Offset) -> list[Array]:
        old = [slice_array(array, axes, offset, block) for array, axes in zip(arrays, letters, strict=True)]
        new = tree.flatten_up_to(visit(tree.unflatten(old), offset))
        return [update_slice(*each, offset, block) for each in zip(arrays, letters, new, strict=True)]

    if groups * len(pairs) == 1:  # XLA does not fuse across a loop of one step
        query, key = pairs[0].tolist()
        return tree.unflatten(visit_at(arrays, Offset(query=query * block.query, key=key * block.key)))
    # The state is carried in the shape in which a tile is a slice; in another layout, XLA would copy all of it in each step.
    whole = [array.shape for array in arrays]
    split = [split_shape(*each, block) for each in zip(whole, letters, strict=True)]

    def step(carry: list[Array], index: Array) -> tuple[list[Array], None]:
        group, pair = index // len(pairs), index % len(pairs)
        query, key = jnp.asarray(pairs)[pair]
        offset = Offset(group // head_groups, group % head_groups, query * block.query, key * block.key)
        return list(map(jnp.reshape, visit_at(list(map(jnp.reshape, carry, whole)), offset), split)), None

    steps = jnp.arange(groups * len(pairs), dtype=jnp.int32)
    carry, _ = lax.scan(step, list(map(jnp.reshape, arrays, split)), steps)
    return tree.unflatten(map(jnp.reshape, carry, whole))


def skip_if_masked(allowed: Allowed | None, compute: Callable[[], State], otherwise: State | None = None) -> State:
    """`compute()`, or `otherwise` (None: zeros) where the mask of a tile leaves no pair, decided when the program runs."""
    if allowed is None:
        return compute()
    if otherwise is None:
        shapes = jax.eval_shape(compute)
        otherwise = match_varying(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), shapes)
    return lax.cond(jnp.any(allowed), compute, lambda: otherwise)
