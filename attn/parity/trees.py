"""Trees of parameters as flat dicts, their names joined by "/": what converters and weight files have in common."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

Arrays = dict[str, np.ndarray]  # flat: "query/kernel" to its array


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves by name. Raises ValueError for what could not be read back from the names."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"params is a {type(tree).__name__}, not a dict of arrays")
    flat: dict[str, Any] = {}
    for name, leaf in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"{prefix}{name!r} is no name of a parameter: a text without '/' is")
        if not isinstance(leaf, Mapping):
            flat[prefix + name] = leaf
        elif leaf:
            flat |= flatten(leaf, f"{prefix}{name}/")
        else:
            raise ValueError(f"{prefix}{name} is an empty dict, and only arrays have a place")
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The tree that `flatten` was given. Raises ValueError where one name is both an array and a dict."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name} and a shorter part of that name are both arrays")
        if last in node:
            raise ValueError(f"{name} is an array, and other names begin with it")
        node[last] = leaf
    return tree


def as_array(name: str, x: Any) -> np.ndarray:
    """A copy of an array of NumPy, JAX or PyTorch, in its own dtype. It takes no import of PyTorch."""
    if type(x).__name__.startswith("Uninitialized"):
        raise ValueError(f"{name} has no values yet: call its module once first")
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        if str(x.dtype) == "torch.bfloat16":  # its numpy() refuses, and float32 holds each of them
            return x.float().numpy().astype(jnp.bfloat16)
        x = x.numpy()
    if not hasattr(x, "dtype"):
        raise ValueError(f"{name} is a {type(x).__name__}, not an array")
    return np.array(x, order="C")


def parameters(variables: Any) -> Arrays:
    """Of `{"params": ...}` or the tree inside it, flat. Raises ValueError for what is no floating point array."""
    inside = isinstance(variables, Mapping) and isinstance(variables.get("params"), Mapping)
    tree = variables["params"] if inside else variables
    arrays = {name: as_array(name, leaf) for name, leaf in flatten(tree).items()}
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} has dtype {array.dtype}, and weights are floating point")
    return arrays


def check_shapes(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], owner: str) -> None:
    """Raises ValueError with the first name that is missing, that is too much, or whose shape is not that of `owner`."""
    for name in shapes:
        if name not in arrays:
            raise ValueError(f"{name} is missing, and {owner} has it")
    for name, array in arrays.items():
        if name not in shapes:
            raise ValueError(f"{name} is no parameter of {owner}")
        if array.shape != shapes[name]:
            raise ValueError(f"{name} is {array.shape}, and in {owner} it is {shapes[name]}")


def check_like(arrays: Arrays, present: Arrays, owner: str) -> None:
    """Raises ValueError where the arrays are not those of `owner` by name, shape and dtype: a cast would lose bits."""
    check_shapes(arrays, {name: array.shape for name, array in present.items()}, owner)
    for name, array in arrays.items():
        if array.dtype != present[name].dtype:
            raise ValueError(f"{name} is {array.dtype}, and in {owner} it is {present[name].dtype}: convert one of them")


def width(arrays: Arrays, name: str, axis: int) -> tuple[int, ...]:
    """The size of an axis that nothing else tells, as a shape: where there is none, `check_shapes` says so."""
    shape = arrays[name].shape if name in arrays else ()
    return shape[axis : axis + 1]
