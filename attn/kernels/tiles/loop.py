"""The loop over the tiles of the scores."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from attn.kernels.inputs import Inputs
from attn.kernels.manual_axes import match_varying
from attn.kernels.tiles.tiling import Block, Offset, full_block, tiles_in_band
from attn.shapes import Allowed, Array

State = TypeVar("State")


def for_each_tile(inputs: Inputs, block: Block, visit: Callable[[State, Offset], State], state: State) -> State:
    """The state after a visit to each tile in which causality and the window leave at least one pair."""
    size = full_block(inputs)
    pairs = tiles_in_band(inputs, size.query, size.key, block.query, block.key)
    head_groups = size.heads // block.heads
    groups = (size.batch // block.batch) * head_groups

    def step(state: State, index: Array) -> tuple[State, None]:
        group, pair = index // len(pairs), index % len(pairs)
        query, key = jnp.asarray(pairs)[pair]
        return visit(state, Offset(group // head_groups, group % head_groups, query * block.query, key * block.key)), None

    state = match_varying(state, inputs)
    if groups * len(pairs) == 1:  # XLA does not fuse across a loop of one step
        query, key = pairs[0].tolist()
        return visit(state, Offset(query=query * block.query, key=key * block.key))
    return lax.scan(step, state, jnp.arange(groups * len(pairs), dtype=jnp.int32))[0]


def skip_if_masked(allowed: Allowed | None, compute: Callable[[], State], otherwise: State | None = None) -> State:
    """`compute()`, or `otherwise` (None: zeros) where the mask of a tile leaves no pair, decided when the program runs."""
    if allowed is None:
        return compute()
    if otherwise is None:
        shapes = jax.eval_shape(compute)
        otherwise = match_varying(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), shapes)
    return lax.cond(jnp.any(allowed), compute, lambda: otherwise)
