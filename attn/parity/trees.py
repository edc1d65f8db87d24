"""What the converters and the weight files share: trees of parameters as flat dicts, with names joined by "/"."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

Arrays = dict[str, np.ndarray]  # a flat dict: from a name such as "query/kernel" to its array


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts, by their joined names. Raises ValueError for a tree that `unflatten` could not restore."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"params is a {type(tree).__name__}, not a dict of arrays")
    flat: dict[str, Any] = {}
    for name, leaf in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"{prefix}{name!r} is not a parameter name: it must be a str without '/', and not empty")
        if not isinstance(leaf, Mapping):
            flat[prefix + name] = leaf
        elif leaf:
            flat |= flatten(leaf, f"{prefix}{name}/")
        else:
            raise ValueError(f"{prefix}{name} is an empty dict: it must hold arrays")
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`. Raises ValueError where one name would be both an array and a dict."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name} is an array, and so is a prefix of its name")
        if last in node:
            raise ValueError(f"{name} is an array, and also a prefix of other names")
        node[last] = leaf
    return tree


def as_array(name: str, x: Any) -> np.ndarray:
    """A NumPy copy of an array of NumPy, JAX or PyTorch, in its own dtype. PyTorch is not imported."""
    if type(x).__name__.startswith("Uninitialized"):
        raise ValueError(f"{name} has no values yet: call its module once first")
    if hasattr(x, "detach"):
        if x.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values: load them first")
        if x.is_quantized or str(x.layout) != "torch.strided":
            raise ValueError(f"{name} is {'quantized' if x.is_quantized else 'sparse'}: it must be a dense array of floats")
        x = x.detach().cpu()
        if str(x.dtype) == "torch.bfloat16":  # numpy() raises for it; float32 represents each of its values
            return x.float().numpy().astype(jnp.bfloat16)
        try:
            x = x.numpy()
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"{name} is {type(x).__name__} of {x.dtype}: NumPy cannot hold it") from error
    if not hasattr(x, "dtype"):
        raise ValueError(f"{name} is a {type(x).__name__}, not an array")
    return np.array(x, order="C")


def parameters(variables: Any) -> Arrays:
    """The arrays of `{"params": ...}` or of the tree inside it, flat. Raises ValueError for any that is not floating point."""
    inside = isinstance(variables, Mapping) and isinstance(variables.get("params"), Mapping)
    tree = variables["params"] if inside else variables
    arrays = {name: as_array(name, leaf) for name, leaf in flatten(tree).items()}
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} has dtype {array.dtype}: weights must be floating point")
    return arrays


def check_shapes(arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], owner: str) -> None:
    """Raises ValueError with the first name that is missing or unknown, or whose shape is not the one in `shapes`.

    Args:
      arrays: the arrays to check.
      shapes: the expected names and shapes.
      owner: what has these shapes, for the message.
    """
    for name in shapes:
        if name not in arrays:
            raise ValueError(f"{name} is missing: it is a parameter of {owner}")
    for name, array in arrays.items():
        if name not in shapes:
            raise ValueError(f"{name} is not a parameter of {owner}")
        if array.shape != shapes[name]:
            raise ValueError(f"{name} has shape {array.shape}: in {owner} it has {shapes[name]}")


def check_like(arrays: Arrays, present: Arrays, owner: str) -> None:
    """Raises ValueError unless names, shapes and dtypes are those of `present`. Nothing is cast, since that may lose bits."""
    check_shapes(arrays, {name: array.shape for name, array in present.items()}, owner)
    for name, array in arrays.items():
        if array.dtype != present[name].dtype:
            raise ValueError(f"{name} has dtype {array.dtype}: in {owner} it has {present[name].dtype}; cast one of them first")


def width(arrays: Arrays, name: str, axis: int) -> tuple[int, ...]:
    """The size of one axis, as a shape of one entry; () where there is no such array or axis, which `check_shapes` reports."""
    shape = arrays[name].shape if name in arrays else ()
    return shape[axis : axis + 1]
