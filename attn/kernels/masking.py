"""Masks that layers share, and NaN and Inf in what a mask hides. True always means: may attend.

A weight of 0 does not hide a vector that holds NaN, because 0 · NaN is NaN. Where a key is masked for all queries, its NaN
and Inf are replaced once, before the first product. Where a key is masked for some queries only, `tiles.products` takes care.
"""

import dataclasses
import functools
import operator

import jax.numpy as jnp
from jax import lax

from attn.kernels.inputs import Inputs
from attn.shapes import Array, Mask, Valid

# Replaces NaN and Inf. Not 0, where many a score has no value or no derivative: a cosine, or a square root.
FILL = 1


def key_padding_mask(valid: Valid) -> Mask:
    """A mask `[*B, 1, 1, S]`, for every head and query, from `[*B, S]` where True is a real key."""
    return valid[..., None, None, :]


def combine_masks(*masks: Array | None) -> Array | None:
    """The conjunction of the masks, which may have any shapes that broadcast; None where all of them are None."""
    given = [mask for mask in masks if mask is not None]
    return functools.reduce(operator.and_, given) if given else None


def clean_masked_keys(inputs: Inputs) -> Inputs:
    """Replaces NaN and Inf in keys that are masked for all queries, and in their values; those entries get no gradient."""
    attendable = _attendable_keys(inputs)
    if attendable is None:
        return inputs
    return dataclasses.replace(inputs, key=_clean(inputs.key, attendable), value=_clean(inputs.value, attendable))


def clean_unweighted_queries(inputs: Inputs, query_weights: Array) -> Inputs:
    """Replaces NaN and Inf in queries whose weight in `query_weights` `[B, T]` is 0; those entries get no gradient."""
    return dataclasses.replace(inputs, query=_clean(inputs.query, (query_weights != 0)[:, None, None, :, None]))


def _clean(array: Array, used: Array) -> Array:
    return jnp.where(used, array, lax.stop_gradient(jnp.where(jnp.isfinite(array), array, FILL)))


def _attendable_keys(inputs: Inputs) -> Array | None:
    """`[B|1, K|1, S|1, 1]`, False for a key that is masked for all queries; None where no mask applies to whole keys."""
    by_mask = inputs.mask[:, :, 0, 0, :, None] if inputs.has_key_mask and inputs.mask is not None else None
    if inputs.key_lengths is None:
        return by_mask
    by_length = jnp.arange(inputs.key.shape[2], dtype=jnp.int32)[None] < inputs.key_lengths[:, None]
    return combine_masks(by_mask, by_length[:, None, :, None])
