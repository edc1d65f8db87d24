"""Meshes around a call: the manual axes of a `jax.shard_map`, and the devices over which the compiler may shard."""

import math
from typing import Any

import jax
from jax import lax
from jax.core import Tracer

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


def automatic_devices(*arrays: Array) -> int:
    """Over how many devices the compiler may shard these arrays; 1 in a `jax.shard_map` over all axes of its mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        return math.prod(size for name, size in mesh.shape.items() if name not in mesh.manual_axes)
    if any(isinstance(array, Tracer) for array in arrays):
        return jax.device_count()  # what a `jit` around this call is given is not known while it is traced
    return max(array.sharding.num_devices for array in arrays)
