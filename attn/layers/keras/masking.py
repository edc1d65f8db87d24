"""From Keras' masks to the arguments of `attn.attend`, and what each version of Keras makes of a row that has no key."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from attn.kernels.masking import combine_masks
from attn.shapes import Array, Key, Mask, Query

Version = Literal["2.11", "3.15"]  # each stands for those before it, back to the other: 3.15 for 3.13 and later
VERSIONS = ("2.11", "3.15")


def check_version(version: str | None, among: tuple[str, ...] = VERSIONS) -> None:
    if version is not None and version not in among:
        raise ValueError(f"version={version!r} is none of {', '.join(map(repr, among))} or None")


def checked(name: str, mask: Any, shape: tuple[int, ...] | None = None) -> Array:
    """The mask, bool and of this shape; another is a ValueError."""
    dtype = mask.dtype if hasattr(mask, "dtype") else np.asarray(mask).dtype
    if dtype != jnp.bool_:
        raise ValueError(f"{name} is {dtype}: it must be bool, True means may attend")
    if shape is not None and np.shape(mask) != shape:
        raise ValueError(f"{name} {np.shape(mask)} must be {shape}")
    return jnp.asarray(mask)


def mean_weights(over: Array | None) -> Array | None:
    """`query_weights` of `attn.attend_pooled` for the mean over these queries, `[.., T]`; 0 where there is none."""
    return None if over is None else over / jnp.maximum(jnp.sum(over, axis=-1, keepdims=True), 1)


def contract(mask: Mask | None, causal: bool) -> dict[str, Any]:
    """As `attn.attend` has it: what is masked has weight 0, and a row of nothing else is 0."""
    return {"mask": mask, "causal": "top_left" if causal else None}


def lowered(mask: Mask | None, causal: bool, by: float, query: Query, key: Key) -> dict[str, Any]:
    """As Keras has it: masked scores are lowered by so much. Where all are, what is left of their differences decides.

    It takes an array of the mask's size, T × S where it is causal.
    """
    if causal:
        lengths = query.shape[-3], key.shape[-3]
        mask = combine_masks(mask, jnp.tri(*lengths, dtype=bool).reshape((1,) * (query.ndim - 2) + lengths))
    dtype = jnp.result_type(query, key, jnp.float32)
    return {} if mask is None else {"bias": jnp.where(mask, jnp.zeros((), dtype), jnp.asarray(-by, dtype))}
