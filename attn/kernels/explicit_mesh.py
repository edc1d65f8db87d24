"""Calls inside of a mesh whose axes have the type `Explicit`, as `jax.make_mesh` makes them.

There the type of an array says how it is sharded, and each operation must say how its result is. The kernels are written for
axes of the type `Auto`, where the compiler decides; `jax.sharding.auto_axes` changes the type during a call.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from attn.kernels.options import Options
from attn.kernels.validation.functions import hoist_functions
from attn.kernels.validation.sizes import call_sizes
from attn.shapes import Array, Key, Query, Value

Result = TypeVar("Result")


def with_automatic_axes(
    function: Callable[..., Result], query: Query, key: Key, value: Value, options: Options, axes: Any, *arrays: Array | None
) -> Result:
    """`function(query, key, value, options, *arrays)`, inside of which no axis of the mesh is explicit.

    Args:
      axes: the axes of each array of the result after the batch axes, a pytree of strings. The axes "t" and "n" are sharded as
        those of the query, "s" as that of the key, "v" as that of the value, and others are not sharded.
    """
    mesh = _explicit_mesh(query, key, value)
    if mesh is None or call_sizes(query, key, value).empty:
        return function(query, key, value, options, *arrays)
    sharding = jax.tree.map(lambda letters: NamedSharding(mesh, _spec(letters, query, key, value)), axes)
    arguments = query, key, value, vars(hoist_functions(query, key, value, options)), arrays
    leaves, tree = jax.tree.flatten(arguments)
    dynamic = [isinstance(leaf, jax.Array) for leaf in leaves]

    def call(*found: Array) -> Result:
        remaining = iter(found)
        merged = [next(remaining) if chosen else leaf for leaf, chosen in zip(leaves, dynamic, strict=True)]
        query, key, value, fields, arrays = jax.tree.unflatten(tree, merged)
        return function(query, key, value, Options(**fields), *arrays)

    automatic: Any = jax.sharding.auto_axes(call, axes=mesh.explicit_axes, out_sharding=sharding)
    if not jax.sharding.get_abstract_mesh().explicit_axes:  # outside of `jax.set_mesh`, only a `jit` knows the devices
        automatic = jax.jit(automatic)
    return automatic(*(leaf for leaf, chosen in zip(leaves, dynamic, strict=True) if chosen))


def _explicit_mesh(*arrays: Array) -> AbstractMesh | None:
    meshes = jax.sharding.get_abstract_mesh(), *(jax.typeof(array).sharding.mesh for array in arrays)
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


def _spec(letters: str, query: Query, key: Key, value: Value) -> PartitionSpec:
    """How a result with these axes is sharded. A mesh axis shards one axis only, the first that asks for it."""
    of_query, of_key, of_value = (jax.typeof(array).sharding.spec for array in (query, key, value))
    by_letter = {"t": of_query[-3], "n": of_query[-2], "s": of_key[-3], "v": of_value[-1]}
    spec, used = [], set()
    for axes in (*of_query[:-3], *map(by_letter.get, letters)):
        names = set(axes if isinstance(axes, tuple) else (axes,)) - {None}
        spec.append(None if names & used else axes)
        used |= names
    return PartitionSpec(*spec)
