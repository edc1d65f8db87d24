"""The one entry to attention: checks the arguments and picks the kernel."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from attn import dense, dense_vjp
from attn.shapes import Key, Mask, Output, Query, Scale, Value, Weights

Implementation = Literal["auto", "dense", "dense_vjp"]
_KERNELS = {"dense": dense.attention, "dense_vjp": dense_vjp.attention}


def attend(
    query: Query,
    key: Key,
    value: Value,
    *,
    mask: Mask | None = None,
    scale: Scale | None = None,
    implementation: Implementation = "auto",
) -> Output:
    """Scaled dot-product attention, softmax(scale · q kᵀ) v (Vaswani et al. 2017, section 3.2.1).

    Args:
      mask: bool, True means may attend; the scores' rank, each axis full or 1. A query with no key gets 0.
      scale: None means 1/√H. May be traced, and is differentiated.
      implementation: "dense" is the definition and takes every JAX transform; "dense_vjp" is faster in reverse mode on
        a CPU and refuses forward mode; "auto" is "dense_vjp" on a CPU, "dense" elsewhere.

    Raises:
      ValueError: one line with the argument, its shape and the rule.
    """
    _check(query, key, mask)
    if value.shape[:-1] != key.shape[:-1]:
        raise ValueError(f"value {value.shape} and key {key.shape} differ before their last axis: [*B, S, N, V], [*B, S, N, H]")
    if implementation == "auto":
        implementation = "dense_vjp" if jax.default_backend() == "cpu" else "dense"
    if implementation not in _KERNELS:
        raise ValueError(f"implementation={implementation!r} is none of {['auto', *_KERNELS]}")
    return _KERNELS[implementation](query, key, value, mask, _scale(scale, query))


def attention_weights(query: Query, key: Key, *, mask: Mask | None = None, scale: Scale | None = None) -> Weights:
    """The weights `[*B, N, T, S]` of `attend` with the same arguments; a row sums to 1, or to 0 where it has no key."""
    _check(query, key, mask)
    return dense.attention_weights(query, key, mask, _scale(scale, query))


def _scale(scale: Scale | None, query: Query) -> Scale:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


def _check(query: Query, key: Key, mask: Mask | None) -> None:
    if query.ndim < 3 or key.ndim != query.ndim:
        raise ValueError(f"query {query.shape} and key {key.shape} must both be [*B, length, heads, head dim]")
    *batch, length, heads, head_dim = query.shape
    if key.shape != (*batch, key.shape[-3], heads, head_dim):
        raise ValueError(f"query {query.shape} and key {key.shape} may differ in their length alone (axis -3)")
    if mask is None:
        return
    if mask.dtype != jnp.bool_:
        raise ValueError(f"mask is {mask.dtype}: it must be bool, True means may attend")
    full = (*batch, heads, length, key.shape[-3])
    if mask.ndim != len(full) or any(m not in (1, f) for m, f in zip(mask.shape, full, strict=True)):
        raise ValueError(f"mask {mask.shape} does not broadcast to the scores {full}: same rank, each axis full or 1")
