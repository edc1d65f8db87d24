"""Splash attention, JAX's flash attention kernel for TPUs: bfloat16, causality, windows, packed segments and a sink."""

import functools
import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from attn.kernels.inputs import Inputs
from attn.kernels.options import Options
from attn.shapes import Array, Key, Output, Query, Value

HONOURED = ("causal", "window", "query_segments", "key_segments", "sink")
DTYPES = ("bfloat16",)
LANES = 128


def unsupported(query: Query, key: Key, value: Value, options: Options) -> str | None:
    """Why the kernel cannot honour these shapes and masks, or None.

    A query that may attend to no key is refused: the kernel returns the mean of all values for it.
    """
    del value
    lengths = queries, keys = query.shape[-3], key.shape[-3]
    if any(length % LANES or not length for length in lengths):
        return f"needs lengths that are multiples of {LANES}: T is {queries} and S is {keys}"
    banded = options.causal not in (None, False) or options.window is not None
    if banded and queries > keys:
        return f"may not leave a query without a key: T is {queries} and S is {keys}"
    if options.query_segments is not None and (options.query_segments is not options.key_segments or queries != keys):
        return "needs one and the same array for query_segments and key_segments"
    if getattr(options.query_segments, "dtype", None) in (jnp.int64, jnp.uint64) and isinstance(
        options.query_segments, jax.Array
    ):
        return f"needs segments of 32 bits: these are {options.query_segments.dtype}"
    return None


def attention(query: Query, key: Key, value: Value, inputs: Inputs, scale: float, interpret: bool = False) -> Output:
    """The output of the kernel; `interpret` runs it in JAX's own operations, on any device."""
    kernel = _kernel(query, key, inputs, interpret)
    query, key = _scaled(query, key, scale)
    by_head = [jnp.moveaxis(x.reshape(-1, *x.shape[-3:]), 2, 1) for x in (query, key, value)]
    sink = None if inputs.sink is None else inputs.sink.reshape(-1).astype(jnp.float32)
    segments, axis = inputs.query_segments, None
    if segments is not None:
        segments, axis = splash.SegmentIds(segments, segments), 0 if segments.shape[0] != 1 else None
        segments = segments if axis == 0 else jax.tree.map(lambda x: x[0], segments)
    output = jax.vmap(kernel, in_axes=(0, 0, 0, axis, None))(*by_head, segments, sink)
    return jnp.moveaxis(output, 1, 2).reshape(*query.shape[:-1], value.shape[-1])


def _scaled(query: Query, key: Key, scale: float) -> tuple[Query, Key]:
    """The query multiplied by the scale, for which the kernel has no argument, and the key that goes with it.

    A scale that is not a power of two, such as 1/√128, rounds every entry of the query and doubles the error of the gradients.
    The scaled query is therefore kept as a sum of two bfloat16 arrays, concatenated along the head dim, and the key is
    repeated to match. That takes half again as many products.
    """
    scaled = query.astype(jnp.float32) * scale
    rounded = scaled.astype(query.dtype)
    if math.frexp(scale)[0] == 0.5:
        return rounded, key
    rest = (scaled - rounded.astype(jnp.float32)).astype(query.dtype)
    return jnp.concatenate([rounded, rest], axis=-1), jnp.concatenate([key, key], axis=-1)


def _kernel(query: Query, key: Key, inputs: Inputs, interpret: bool) -> Callable[..., Array]:
    shape = query.shape[-3], key.shape[-3]
    block_query, block_key = (next(side for side in (512, 256, 128) if length % side == 0) for length in shape)
    sizes = splash.BlockSizes(
        block_q=block_query,
        block_kv=block_key,
        block_q_dkv=block_query,
        block_kv_dkv=block_key,
        block_q_dq=block_query,
        block_kv_dq=block_key,
    )
    mask = splash.FullMask(shape)
    if inputs.has_band:
        mask = splash.LocalMask(shape, inputs.window, inputs.query_offset)
    heads = splash.MultiHeadMask([mask] * query.shape[-2])
    make = functools.partial(splash.make_splash_mha, head_shards=1, q_seq_shards=1, interpret=interpret)
    return cast(Callable[..., Array], make(heads, block_sizes=sizes))  # the output alone, without residuals
