"""From Keras' masks to the arguments of `attn.attend`, and what each version of Keras makes of a row that has no key."""

import functools
import operator
from typing import Any, Literal

import jax.numpy as jnp

from attn.shapes import Key, Mask, Query

Version = Literal["2.11", "3.15"]  # each stands for those before it, back to the other: 3.15 for 3.13 and later
VERSIONS = ("2.11", "3.15")


def check_version(version: str | None, among: tuple[str, ...] = VERSIONS) -> None:
    if version is not None and version not in among:
        raise ValueError(f"version={version!r} is none of {', '.join(map(repr, among))} or None")


def merge(*masks: Mask | None) -> Mask | None:
    """The masks all together, None where there is none."""
    given = [mask for mask in masks if mask is not None]
    return functools.reduce(operator.and_, given) if given else None


def contract(mask: Mask | None, causal: bool) -> dict[str, Any]:
    """As `attn.attend` has it: what is masked has weight 0, and a row of nothing else is 0."""
    return {"mask": mask, "causal": "top_left" if causal else None}


def lowered(mask: Mask | None, causal: bool, by: float, query: Query, key: Key) -> dict[str, Any]:
    """As Keras has it: masked scores are lowered by so much. Where all are, what is left of their differences decides.

    It takes an array of the mask's size, T × S where it is causal.
    """
    if causal:
        lengths = query.shape[-3], key.shape[-3]
        mask = merge(mask, jnp.tri(*lengths, dtype=bool).reshape((1,) * (query.ndim - 2) + lengths))
    dtype = jnp.result_type(query, key, jnp.float32)
    return {} if mask is None else {"bias": jnp.where(mask, jnp.zeros((), dtype), jnp.asarray(-by, dtype))}
