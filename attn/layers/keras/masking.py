"""Converts Keras' masks to arguments of `attn.attend`, with or without what Keras gives a query that has no key."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from attn._dtypes import at_least_float32
from attn.kernels.masking import combine_masks
from attn.layers.flags import Flag
from attn.shapes import Array, Key, Mask, Query

Version = Literal["2.11", "3.15"]  # docs/layers.md says which of them stands for which other version
VERSIONS = ("2.11", "3.15")


def check_version(version: str | None, supported: tuple[str, ...] = VERSIONS) -> None:
    """Raises ValueError unless the version is supported or None."""
    if version is not None and version not in supported:
        raise ValueError(f"version={version!r} is not one of {', '.join(map(repr, supported))} or None")


def checked(name: str, mask: Any, shape: tuple[int, ...] | None = None) -> Array:
    """Returns the mask as a JAX array. Raises ValueError unless it is bool and, if a shape is given, of that shape."""
    dtype = mask.dtype if hasattr(mask, "dtype") else np.asarray(mask).dtype
    if dtype != jnp.bool_:
        raise ValueError(f"{name} is {dtype}: it must be bool, where True means may attend")
    if shape is not None and np.shape(mask) != shape:
        raise ValueError(f"{name} {np.shape(mask)} must be {shape}")
    return jnp.asarray(mask)


def mean_weights(over: Array | None) -> Array | None:
    """`query_weights` of `attn.attend_pooled` for the mean over the queries where `over` `[.., T]` is True; 0 if none is."""
    if over is None:
        return None
    dtype = jnp.asarray(1.0).dtype  # float64 only where JAX computes in it
    return over.astype(dtype) / jnp.maximum(jnp.sum(over, axis=-1, keepdims=True), 1).astype(dtype)


def contract(mask: Mask | None, causal: Flag) -> dict[str, Any]:
    """The arguments for the contract of `attn.attend`: a masked key has weight 0, also where a query has no other keys."""
    if isinstance(causal, jax.Array):  # traced, by a lift of linen
        return {"mask": mask, "mask_mod": lambda batch, head, query, key: ~causal | (key <= query)}
    return {"mask": mask, "causal": "top_left" if causal else None}


def lowered(mask: Mask | None, causal: Flag, by: float, query: Query, key: Key) -> dict[str, Any]:
    """The arguments for Keras' way of masking: `by` is subtracted from each masked score.

    Where all keys of a query are masked, its weights are the softmax of what rounding has left of the scores. The bias is an
    array of the mask's shape, which is T × S with `causal`.
    """
    if causal is not False:
        lengths = query.shape[-3], key.shape[-3]
        earlier = jnp.tri(*lengths, dtype=bool) | jnp.logical_not(causal)
        mask = combine_masks(mask, earlier.reshape((1,) * (query.ndim - 2) + lengths))
    dtype = at_least_float32(jnp.asarray(query).dtype, jnp.asarray(key).dtype)
    return {} if mask is None else {"bias": jnp.where(mask, jnp.zeros((), dtype), jnp.asarray(-by, dtype))}
