"""Masks and biases of pairs, lengths, segments and positions."""

from typing import Any

import jax.numpy as jnp

from attn._integers import as_clipped, as_labels, as_positions
from attn._validation import as_array
from attn.kernels.options import Options, Sizes
from attn.shapes import Array


def pairwise_array(name: str, array: Any, sizes: Sizes) -> Array | None:
    """A bias or mask `[*B, N, T, S]`, each axis full or 1, as `[B|1, K|1, R|1, T|1, S|1]`."""
    if array is None:
        return None
    array = as_array(name, array)
    if name == "mask" and array.dtype != jnp.bool_:
        raise ValueError(f"mask is {array.dtype}: it must be bool, where True means may attend; additive terms go into bias")
    if name == "bias" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"bias is {array.dtype}: it must be floating point; a bool array that says who may attend is mask")
    full = (*sizes.batch, sizes.N, sizes.T, sizes.S)
    if array.ndim != len(full) or any(n not in (1, f) for n, f in zip(array.shape, full, strict=True)):
        raise ValueError(f"{name} {array.shape} does not broadcast to the scores {full}: same rank, each axis full or 1")
    batch, (heads, *lengths) = array.shape[:-3], array.shape[-3:]
    if any(n != 1 for n in batch):
        array = jnp.broadcast_to(array, (*sizes.batch, heads, *lengths))
    rows = sizes.B if any(n != 1 for n in batch) else 1
    split = (1, 1) if heads == 1 else (sizes.K, sizes.R)
    return array.reshape(rows, *split, *lengths)


def length_arrays(options: Options, sizes: Sizes) -> dict[str, Any]:
    """The lengths of queries and keys that are given, `[*B]` as `[B]`."""
    given = {"query_lengths": options.query_lengths, "key_lengths": options.key_lengths}
    return {name: _length_array(name, lengths, sizes) for name, lengths in given.items() if lengths is not None}


def _length_array(name: str, lengths: Any, sizes: Sizes) -> Array:
    lengths = as_clipped(name, lengths, lowest=0)
    if lengths.shape != sizes.batch:
        raise ValueError(f"{name} {lengths.shape} must have the shape of the batch axes {sizes.batch}")
    return lengths.reshape(sizes.B)


def position_arrays(options: Options, sizes: Sizes) -> dict[str, Any]:
    """The positions of queries and keys, each of which may be None."""
    given = {"query_positions": options.query_positions, "key_positions": options.key_positions}
    absolute = options.score_mod is not None or options.mask_mod is not None
    arrays = {name: _rows(name, array, sizes) for name, array in as_positions(absolute, **given).items()}
    if any(
        array is not None and array.dtype == jnp.int64 for array in arrays.values()
    ):  # then positions that are not given too
        indices = {"query_positions": jnp.arange(sizes.T)[None], "key_positions": jnp.arange(sizes.S)[None]}
        arrays = {name: indices[name] if array is None else array for name, array in arrays.items()}
    return arrays


def _rows(name: str, array: Array | None, sizes: Sizes) -> Array | None:
    """Positions or segments, `[length]` for all examples or `[*B, length]`, as `[B|1, length]`."""
    if array is None:
        return None
    length = sizes.T if name.startswith("query") else sizes.S
    if array.shape not in ((length,), (*sizes.batch, length)):
        raise ValueError(f"{name} {array.shape} must be {(length,)} or {(*sizes.batch, length)}")
    return array.reshape(array.size // length if length else 1, length)


def segment_arrays(options: Options, sizes: Sizes) -> dict[str, Any]:
    """Both segments, or None for both."""
    query, key = options.query_segments, options.key_segments
    if (query is None) != (key is None):
        missing = "query_segments" if query is None else "key_segments"
        raise ValueError(f"{missing} is missing: segments are given for queries and keys, or for neither")
    if query is None:
        return {}
    given = {"query_segments": query, "key_segments": key}
    return {name: _rows(name, array, sizes) for name, array in zip(given, as_labels(**given), strict=True)}
