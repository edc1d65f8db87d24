"""Integers of any width, of Python, NumPy or JAX, for kernels that compute with 32 bits, as JAX does without x64.

`jnp.asarray` cuts a NumPy integer of 64 bits to 32 in silence, so NumPy's are looked at before they become JAX arrays.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from attn._validation import as_array
from attn.shapes import Array

LOWEST, LARGEST = -(2**31), 2**31 - 1


def as_integers(name: str, array: Any) -> np.ndarray | Array:
    """An array of integers: of NumPy, in its own width, or of JAX where it was one already or holds traced numbers.

    Raises:
      ValueError: it is no array of integers, or one of them does not fit in 64 bits.
    """
    if not isinstance(array, jax.Array | np.ndarray):
        array = _of_python(name, array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} is {array.dtype}: it must be integers")
    return array


def as_clipped(name: str, array: Any, lowest: int = LOWEST) -> Array:
    """Integers as int32; those above 2³¹ − 1, such as the largest of 64 bits for "no limit", become 2³¹ − 1.

    Raises:
      ValueError: it is no array of integers.
    """
    array = as_integers(name, array)
    numpy: Any = np if isinstance(array, np.ndarray) else jnp
    limits = np.iinfo(array.dtype)
    if limits.min < lowest:
        array = numpy.maximum(array, numpy.asarray(lowest, array.dtype))
    if limits.max > LARGEST:
        array = numpy.minimum(array, numpy.asarray(LARGEST, array.dtype))
    return jnp.asarray(array.astype(np.int32))


def as_labels(**arrays: Any) -> tuple[Array, ...]:
    """Integers that are only compared with each other, in one dtype, of 32 bits wherever that is possible.

    Raises:
      ValueError: they are no arrays of integers, or of types that JAX cannot compare.
    """
    labels = {name: as_integers(name, array) for name, array in arrays.items()}
    labels = {name: x.astype(np.int32) if _fits(x) else x for name, x in labels.items()}
    dtypes = {x.dtype for x in labels.values()}
    if all(np.can_cast(dtype, np.int32) for dtype in dtypes):
        common = np.dtype(np.int32)
    elif all(isinstance(x, jax.Array) for x in labels.values()) or _x64():
        common = _common_dtype(dtypes)
    else:
        common = None  # integers of NumPy that JAX would cut
    if common is not None:
        return tuple(jnp.asarray(x).astype(common) for x in labels.values())
    if any(map(_is_traced, labels.values())):
        found = " and ".join(f"{name} of {x.dtype}" for name, x in labels.items())
        raise ValueError(f"{found}: the one that is traced cannot be compared with the other; give them one dtype of 32 bits")
    return _numbered([np.asarray(x) for x in labels.values()])


def as_positions(absolute: bool, **arrays: Any) -> dict[str, Array | None]:
    """Positions as int32, or all as int64 where they need it and JAX has it; None stands for 0, 1, 2, …, and stays.

    Args:
      absolute: whether something reads positions and not only the distances between them. Otherwise, positions of NumPy that
        do not fit in 32 bits are moved by a number that all share.

    Raises:
      ValueError: they are no arrays of integers, or do not fit.
    """
    positions = {name: as_integers(name, array) for name, array in arrays.items() if array is not None}
    positions = {name: np.asarray(x) if x.dtype == np.uint32 and not _is_traced(x) else x for name, x in positions.items()}
    known = [x for x in positions.values() if isinstance(x, np.ndarray) and x.size]
    ends = [int(end) for x in known for end in (x.min(), x.max())] + ([0] if len(positions) < len(arrays) else [])
    lowest, highest = min(ends, default=0), max(ends, default=0)
    fits = lowest >= LOWEST and highest <= LARGEST and highest - lowest <= LARGEST
    if _x64():
        traced_wide = any(not np.can_cast(x.dtype, np.int32) for x in positions.values() if not isinstance(x, np.ndarray))
        dtype, start = (np.int64 if traced_wide or not fits else np.int32), 0
    elif fits:
        dtype, start = np.int32, 0
    elif not absolute and len(known) == len(arrays) and highest - lowest <= LARGEST:
        dtype, start = np.int32, lowest
    else:
        name = max((x for x in positions if isinstance(positions[x], np.ndarray)), key=lambda x: np.max(np.abs(positions[x])))
        raise ValueError(
            f"{name} {_range(positions[name])}: without jax_enable_x64, positions and their distances must fit in 32 bits"
        )
    return {name: None if array is None else _moved(positions[name], start, dtype) for name, array in arrays.items()}


def _common_dtype(dtypes: set[np.dtype]) -> np.dtype | None:
    """The dtype that holds all of them in JAX; None where there is none, as for int64 and uint64."""
    common = np.result_type(*dtypes)
    return common if common.kind in "iu" and (common.itemsize <= 4 or _x64()) else None


def _of_python(name: str, array: Any) -> np.ndarray | Array:
    try:
        found = np.asarray(array)
        if found.dtype.kind in "iu":
            return found
        whole = np.asarray(array, object)  # NumPy takes [2**63, 1] for floats
    except (TypeError, ValueError, OverflowError, jax.errors.TracerArrayConversionError):
        return as_array(name, array)
    if not all(isinstance(x, int | np.integer) and not isinstance(x, bool) for x in whole.flat):
        return found
    if whole.size == 0:
        return found.astype(np.int32)
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= whole.min() and whole.max() <= np.iinfo(dtype).max:
            return whole.astype(dtype)
    raise ValueError(f"{name} has {max(whole.flat, key=abs)}: integers must fit in 64 bits")


def _moved(array: np.ndarray | Array, start: int, dtype: Any) -> Array:
    if isinstance(array, np.ndarray):
        array = (array - np.asarray(start, array.dtype)) if start else array
    return jnp.asarray(array.astype(dtype))


def _numbered(arrays: list[np.ndarray]) -> tuple[Array, ...]:
    """Each label as the index of it among all labels."""
    flat = [x.ravel() for x in arrays]
    if np.result_type(*flat) == np.float64:  # int64 beside uint64
        flat = [x.astype(object) for x in flat]
    _, numbers = np.unique(np.concatenate(flat), return_inverse=True)
    parts = np.split(numbers.reshape(-1).astype(np.int32), np.cumsum([x.size for x in flat])[:-1])
    return tuple(jnp.asarray(part.reshape(x.shape)) for part, x in zip(parts, arrays, strict=True))


def _fits(array: np.ndarray | Array) -> bool:
    """Whether these are numbers of NumPy that int32 holds."""
    if not isinstance(array, np.ndarray):
        return False
    return array.size == 0 or (int(array.min()) >= LOWEST and int(array.max()) <= LARGEST)


def _is_traced(array: np.ndarray | Array) -> bool:
    return isinstance(array, Tracer)


def _range(array: np.ndarray | Array) -> str:
    return f"from {array.min()} to {array.max()}"


def _x64() -> bool:
    config: Any = jax.config  # its fields have no static types
    return config.jax_enable_x64
