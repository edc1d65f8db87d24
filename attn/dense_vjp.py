"""The definition with its backward pass written out, for the order in which XLA's CPU backend likes its products.

The gradients of key and value are products of a transposed `[T, S]` array. Autodiff asks for them as (weightsᵀ · g), and
on the CPU that runs at a quarter of the speed of a plain product (15 against 65 GFLOP/s on one AVX2 core, T = S = 256,
H = 16). The same numbers as (gᵀ · weights)ᵀ transpose the small array alone. XLA's simplifier folds the outer
transposition back into the slow form, so a barrier stands between the two. A train step of the single_head model is 1.6
times as fast for it (1.5 to 1.8 over a noisy session).

First derivatives in reverse mode, and forward over reverse; `jax.jvp` needs `attn.dense`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from attn import dense
from attn.masks import hide_unattended
from attn.shapes import Array, Key, Mask, Output, Query, Scale, Value, Weights


def attention(query: Query, key: Key, value: Value, mask: Mask | None, scale: Scale) -> Output:
    """The contract of `attn.dense.attention`, to the rounding of one product."""
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scaled = query.astype(dtype) * jnp.asarray(scale, dtype)
    key, value = hide_unattended(key, mask), hide_unattended(value, mask)
    return _attention(scaled, key.astype(dtype), value.astype(dtype), mask).astype(value.dtype)


@jax.custom_vjp
def _attention(query: Query, key: Key, value: Value, mask: Mask | None) -> Output:
    return _forward(query, key, value, mask)[0]


def _forward(query: Query, key: Key, value: Value, mask: Mask | None):
    powers, sums = dense.exponentials(dense.scores(query, key, 1.0), mask)
    sums = jnp.swapaxes(sums, -2, -3)  # [*B, T, N, 1]
    output = jnp.einsum("...nts,...snv->...tnv", powers, value) / sums
    return output, (query, key, value, powers, sums, output)


def _backward(saved, gradient: Output):
    query, key, value, powers, sums, output = saved
    gradient = gradient / sums  # so that the exponentials stand in for the weights below
    mean = jnp.swapaxes(jnp.sum(gradient * output, axis=-1, keepdims=True), -2, -3)  # [*B, N, T, 1]
    score_gradient = powers * (jnp.einsum("...tnv,...snv->...nts", gradient, value) - mean)
    query_gradient = jnp.einsum("...nts,...snh->...tnh", score_gradient, key)
    return query_gradient, _by_key(query, score_gradient), _by_key(gradient, powers), None


def _by_key(rows: Query, weights: Weights) -> Array:
    """Σ_t weights[n, t, s] · rows[t, n, h] as `[*B, S, N, H]`, without transposing the weights."""
    columns = lax.optimization_barrier(jnp.einsum("...tnh,...nts->...nhs", rows, weights))
    return jnp.moveaxis(columns, -1, -3)


_attention.defvjp(_forward, _backward)
