"""Attention over chosen axes of arrays of any rank: `attention_axes` of `keras.layers.MultiHeadAttention`."""

import math

import jax.numpy as jnp

from attn.layers.keras.masking import checked
from attn.shapes import Array, Mask

Axes = tuple[int, ...]


def resolve(axes: int | Axes | None, rank: int) -> Axes:
    """The axes that are attended over, as positive numbers.

    Args:
      axes: `attention_axes` of the layer. None means all axes between the first, which is the batch, and the last.
      rank: the rank of the inputs.

    Raises:
      ValueError: the rank is below 2, or the axes are not distinct axes of such inputs, or include the last.
    """
    if rank < 2:
        raise ValueError(f"query has rank {rank}: it must be [*B, T, D], of at least rank 2")
    if axes is None:
        return tuple(range(1, rank - 1)) if rank > 2 else (0,)
    given = (axes,) if isinstance(axes, int) else tuple(axes) if isinstance(axes, tuple | list) else ()
    resolved = tuple(axis % rank if -rank <= axis < rank else rank for axis in given)
    if not resolved or len(set(resolved)) != len(resolved) or any(axis >= rank - 1 for axis in resolved):
        raise ValueError(f"attention_axes={axes!r} must be distinct axes of inputs of rank {rank}, without the last")
    return resolved


def as_lengths(heads: Array, axes: Axes) -> Array:
    """Merges the attended axes into one: `[.., N, H]` to `[*rest, T, N, H]`, where `rest` are the other axes."""
    rest = [axis for axis in range(heads.ndim - 2) if axis not in axes]
    moved = jnp.transpose(heads, (*rest, *axes, heads.ndim - 2, heads.ndim - 1))
    length = math.prod(heads.shape[axis] for axis in axes)
    return moved.reshape(*moved.shape[: len(rest)], length, *heads.shape[-2:])


def as_axes(heads: Array, axes: Axes, shape: tuple[int, ...]) -> Array:
    """The inverse of `as_lengths`: `[*rest, T, N, V]` to `[.., N, V]`, with the axes in the order of inputs of `shape`."""
    rest = [axis for axis in range(len(shape) - 1) if axis not in axes]
    unflattened = heads.reshape(*heads.shape[: len(rest)], *(shape[axis] for axis in axes), *heads.shape[-2:])
    return jnp.moveaxis(unflattened, range(len(shape) - 1), (*rest, *axes))


def by_head(mask: Array, axes: Axes, query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> Mask:
    """Reshapes Keras' `attention_mask` to `[*rest, N, T, S]`, where each axis may have size 1. Missing axes are inserted.

    Raises:
      ValueError: the mask is not bool, or its shape does not match the numbers of queries and keys.
    """
    mask = checked("attention_mask", mask)
    queries, keys = ([shape[axis] for axis in axes] for shape in (query_shape, key_shape))
    rest, pairs = len(query_shape) - 1 - len(axes), 2 * len(axes)
    fits = all(n in (1, full) for n, full in zip(mask.shape[-pairs:], queries + keys, strict=False))
    if not pairs <= mask.ndim <= rest + 1 + pairs or not fits:
        raise ValueError(
            f"attention_mask {mask.shape} must end in {tuple(queries + keys)}, the axes of queries and keys, after at most the "
            f"batch axes and one axis of heads"
        )
    lead = mask.shape[:-pairs]
    # The axes that are missing, such as the heads of [*rest, T, S], have size 1.
    lead = (*lead, *(1 for _ in range(rest + 1 - len(lead))))
    if len(axes) == 1:
        return mask.reshape(*lead, *mask.shape[-2:])
    mask = jnp.broadcast_to(mask, (*mask.shape[:-pairs], *queries, *keys))
    return mask.reshape(*lead, math.prod(queries), math.prod(keys))


def by_heads(
    masks: dict[str, Array | None], axes: Axes, query_shape: tuple[int, ...], key_shape: tuple[int, ...]
) -> dict[str, Mask]:
    """Reshapes query_mask, value_mask, key_mask and attention_mask to `[*rest, N, T, S]`, where each axis may have size 1.

    Args:
      masks: the masks of a call by name; those that are None are left out of the result.
      axes: the axes that are attended over.
      query_shape: the shape of the queries before the projection.
      key_shape: the shape of the keys before the projection.

    Raises:
      ValueError: a mask is not bool, or its shape does not match.
    """
    reshaped: dict[str, Mask] = {}
    for name, mask in masks.items():
        if mask is None:
            continue
        if name == "attention_mask":
            reshaped[name] = by_head(mask, axes, query_shape, key_shape)
            continue
        if len(axes) > 1:
            raise ValueError(f"{name} with attention_axes={axes}: it masks a single axis; pass attention_mask instead")
        masks_queries = name == "query_mask"
        mask = jnp.moveaxis(checked(name, mask, (query_shape if masks_queries else key_shape)[:-1]), min(axes), -1)
        reshaped[name] = mask[..., None, :, None] if masks_queries else mask[..., None, None, :]
    return reshaped
