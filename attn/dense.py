"""The definition: softmax(scale · q kᵀ) v, where the weights are an array you can look at.

Vaswani et al. 2017, section 3.2.1. Plain `jax.numpy`, so every JAX transform works, and memory is O(T · S). Scores and
softmax are at least float32; float64 stays float64; the output has the value's dtype.
"""

import jax.numpy as jnp
from jax import lax

from attn.masks import hide_unattended
from attn.shapes import Array, Key, Mask, Output, Query, Scale, Value, Weights


def scores(query: Query, key: Key, scale: Scale) -> Weights:
    """scale · q kᵀ. The query is scaled, not the scores: S times fewer products, and what Keras and PyTorch do."""
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scaled = query.astype(dtype) * jnp.asarray(scale, dtype)
    return jnp.einsum("...tnh,...snh->...nts", scaled, key.astype(dtype))


def exponentials(scores: Weights, mask: Mask | None) -> tuple[Weights, Array]:
    """The softmax before its division: exp(score − row maximum), and the row sums `[*B, N, T, 1]`.

    A masked entry is 0. A row without any key sums to 1, so that the division leaves its zeros alone.
    """
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    highest = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf))
    powers = jnp.exp(scores - jnp.where(highest == -jnp.inf, 0, highest))
    sums = jnp.sum(powers, axis=-1, keepdims=True)
    return powers, jnp.where(sums == 0, 1, sums)


def attention_weights(query: Query, key: Key, mask: Mask | None, scale: Scale) -> Weights:
    """softmax over the keys; a query that may attend to none has weights 0."""
    powers, sums = exponentials(scores(query, hide_unattended(key, mask), scale), mask)
    return powers / sums


def attention(query: Query, key: Key, value: Value, mask: Mask | None, scale: Scale) -> Output:
    """The weighted sum of the values; a query that may attend to none gets 0."""
    weights = attention_weights(query, key, mask, scale)
    value = hide_unattended(value, mask)
    return jnp.einsum("...nts,...snv->...tnv", weights, value.astype(weights.dtype)).astype(value.dtype)
