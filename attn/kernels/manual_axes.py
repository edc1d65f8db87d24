"""The manual axes of a surrounding `jax.shard_map` over which an array varies."""

from typing import Any

import jax
from jax import lax

from attn.shapes import Array


def varying_axes(*arrays: Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    """The axes over which any of the arrays varies."""
    return frozenset().union(*(jax.typeof(array).manual_axis_type.varying for array in arrays))


def match_varying(tree: Any, like: Any) -> Any:
    """Casts the arrays of `tree` to vary over the axes that any array of `like` varies over.

    The state of a loop must keep one type, and a sum over shards must be cast where autodiff sees it.
    """
    axes = varying_axes(*jax.tree.leaves(like))

    def cast(array: Array) -> Array:
        missing = tuple(axes - varying_axes(array))
        return lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(cast, tree) if axes else tree
