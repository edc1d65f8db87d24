"""Attention over some axes of arrays of any rank: `attention_axes` of `keras.layers.MultiHeadAttention`."""

import math

import jax.numpy as jnp

from attn.layers.keras.masking import checked
from attn.shapes import Array, Mask

Axes = tuple[int, ...]


def resolve(axes: int | Axes | None, rank: int) -> Axes:
    """Which axes of inputs of this rank are attended over. None: all between the first, which is the batch, and the last."""
    if rank < 2:
        raise ValueError(f"query has rank {rank}: it must be [*B, T, D], of rank 2 at least")
    if axes is None:
        return tuple(range(1, rank - 1)) if rank > 2 else (0,)
    given = (axes,) if isinstance(axes, int) else tuple(axes) if isinstance(axes, tuple | list) else ()
    found = tuple(axis % rank if -rank <= axis < rank else rank for axis in given)
    if not found or len(set(found)) != len(found) or any(axis >= rank - 1 for axis in found):
        raise ValueError(f"attention_axes={axes!r} must be different axes of inputs of rank {rank}, and not the last")
    return found


def as_lengths(heads: Array, axes: Axes) -> Array:
    """`[.., N, H]` with the attended axes as one, `[*rest, T, N, H]`."""
    rest = [axis for axis in range(heads.ndim - 2) if axis not in axes]
    moved = jnp.transpose(heads, (*rest, *axes, heads.ndim - 2, heads.ndim - 1))
    length = math.prod(heads.shape[axis] for axis in axes)
    return moved.reshape(*moved.shape[: len(rest)], length, *heads.shape[-2:])


def as_axes(heads: Array, axes: Axes, shape: tuple[int, ...]) -> Array:
    """The inverse: `[*rest, T, N, V]` as `[.., N, V]` with the axes where inputs of that shape have them."""
    rest = [axis for axis in range(len(shape) - 1) if axis not in axes]
    unflattened = heads.reshape(*heads.shape[: len(rest)], *(shape[axis] for axis in axes), *heads.shape[-2:])
    return jnp.moveaxis(unflattened, range(len(shape) - 1), (*rest, *axes))


def by_head(mask: Array, axes: Axes, query_shape: tuple[int, ...], key_shape: tuple[int, ...]) -> Mask:
    """Keras' attention mask as `[*rest, N, T, S]`, each axis full or 1: axes it lacks are put before T.

    Raises ValueError where it is not bool, or has another number of queries or keys.
    """
    mask = checked("attention_mask", mask)
    queries, keys = ([shape[axis] for axis in axes] for shape in (query_shape, key_shape))
    rest, pairs = len(query_shape) - 1 - len(axes), 2 * len(axes)
    fits = all(n in (1, full) for n, full in zip(mask.shape[-pairs:], queries + keys, strict=False))
    if not pairs <= mask.ndim <= rest + 1 + pairs or not fits:
        raise ValueError(
            f"attention_mask {mask.shape} must end in {tuple(queries + keys)}, queries and keys, after no more than a batch "
            f"and a heads axis"
        )
    lead = mask.shape[:-pairs]
    # A batch without heads: [*rest, T, S] has no heads axis, and what is missing beyond that is to be 1 too.
    lead = (*lead, *(1 for _ in range(rest + 1 - len(lead))))
    if len(axes) == 1:
        return mask.reshape(*lead, *mask.shape[-2:])
    mask = jnp.broadcast_to(mask, (*mask.shape[:-pairs], *queries, *keys))
    return mask.reshape(*lead, math.prod(queries), math.prod(keys))


def by_heads(
    masks: dict[str, Array | None], axes: Axes, query_shape: tuple[int, ...], key_shape: tuple[int, ...]
) -> dict[str, Mask]:
    """Keras' query_mask, value_mask, key_mask and attention_mask, each as `[*rest, N, T, S]` with its axes full or 1."""
    found: dict[str, Mask] = {}
    for name, mask in masks.items():
        if mask is None:
            continue
        if name == "attention_mask":
            found[name] = by_head(mask, axes, query_shape, key_shape)
            continue
        if len(axes) > 1:
            raise ValueError(f"{name} with attention_axes={axes}: it is of one axis; pass attention_mask")
        of_query = name == "query_mask"
        mask = jnp.moveaxis(checked(name, mask, (query_shape if of_query else key_shape)[:-1]), min(axes), -1)
        found[name] = mask[..., None, :, None] if of_query else mask[..., None, None, :]
    return found
