"""The shapes of query, key and value, and their layout in the kernels."""

from typing import Any

import jax.numpy as jnp

from attn._validation import as_array
from attn.kernels.options import Sizes
from attn.shapes import Array, Key, Query, Value


def as_arrays(query: Any, key: Any, value: Any) -> tuple[Array, Array, Array]:
    """The three as JAX arrays. Raises ValueError where one of them cannot be converted."""
    return as_array("query", query), as_array("key", key), as_array("value", value)


def call_sizes(query: Query, key: Key, value: Value) -> Sizes:
    """The sizes of one call. Raises ValueError where shapes or dtypes do not go together."""
    for name, array in {"query": query, "key": key, "value": value}.items():
        if query.ndim < 3:
            raise ValueError(f"query {query.shape} must be [*B, T, N, H]: it has {query.ndim} axes, and three is the least")
        if array.ndim != query.ndim:
            raise ValueError(f"{name} {array.shape} must be [*B, length, heads, head dim], of the rank of query {query.shape}")
        if array.dtype not in (jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64):
            raise ValueError(f"{name} is {array.dtype}: it must be floating point, of 16, 32 or 64 bits")
        if array.shape[:-3] != query.shape[:-3]:
            raise ValueError(f"{name} {array.shape} and query {query.shape} differ in their batch axes {array.shape[:-3]}")
    if key.shape[:-1] != value.shape[:-1]:
        raise ValueError(f"value {value.shape} and key {key.shape} differ before their last axis: [*B, S, K, V], [*B, S, K, H]")
    *batch, length, heads, _ = query.shape
    keys, key_heads = key.shape[-3:-1]
    if 0 in (heads, key_heads, query.shape[-1], key.shape[-1]):
        raise ValueError(f"query {query.shape} and key {key.shape} must have at least one head and one channel")
    if heads % key_heads:
        raise ValueError(f"query {query.shape} has {heads} heads, not a multiple of the {key_heads} heads of key {key.shape}")
    return Sizes(tuple(batch), length, keys, heads, key_heads)


def split_heads(array: Array, sizes: Sizes) -> Array:
    """`[*B, length, heads, C]` as `[B, heads, length, C]`."""
    *_, length, heads, channels = array.shape
    return jnp.moveaxis(array.reshape(sizes.B, length, heads, channels), 1, 2)


def split_query_heads(query: Query, sizes: Sizes) -> Array:
    """`[*B, T, N, H]` as `[B, K, R, T, H]`."""
    return split_heads(query, sizes).reshape(sizes.B, sizes.K, sizes.R, sizes.T, query.shape[-1])


def merge_query_heads(output: Array, sizes: Sizes) -> Array:
    """`[B, K, R, T, V]` as `[*B, T, N, V]`."""
    output = jnp.moveaxis(output.reshape(sizes.B, sizes.N, sizes.T, output.shape[-1]), 1, 2)
    return output.reshape(*sizes.batch, sizes.T, sizes.N, output.shape[-1])
