"""From the arguments of `attn.attend` to the inputs of the kernels. Every rule about an argument is checked here."""

import jax.numpy as jnp

from attn._dtypes import at_least_float32
from attn._validation import as_array, check_name
from attn.kernels.inputs import Inputs
from attn.kernels.manual_axes import automatic_devices
from attn.kernels.masking import clean_masked_keys
from attn.kernels.options import Options, Sizes
from attn.kernels.validation.causality import aligned_positions, causal_offset, window_sides
from attn.kernels.validation.dropout import dropout_inputs
from attn.kernels.validation.functions import mod_inputs, score_inputs
from attn.kernels.validation.masks import length_arrays, pairwise_array, position_arrays, segment_arrays
from attn.kernels.validation.sizes import call_sizes, split_heads
from attn.normalizers import NORMALIZERS, WITH_SINK
from attn.shapes import Array, Key, Query, Value


def validate(query: Query, key: Key, value: Value, options: Options) -> tuple[Inputs, Sizes]:
    """The checked arguments in the layout of the kernels, and their sizes.

    Raises:
      ValueError: one line with the argument, its shape or value, and the rule.
    """
    sizes = call_sizes(query, key, value)
    check_name("normalizer", options.normalizer, NORMALIZERS)
    dtype = at_least_float32(query.dtype, key.dtype, value.dtype)
    causal, query_offset = causal_offset(options, sizes)
    lengths = length_arrays(options, sizes)
    positions = position_arrays(options, sizes) | aligned_positions(options, lengths, sizes)
    position_dtype = next((x.dtype for x in positions.values() if x is not None), jnp.int32)
    inputs = Inputs(
        **score_inputs(query, key, options, dtype, sizes),
        value=split_heads(value, sizes),
        bias=pairwise_array("bias", options.bias, sizes),
        mask=pairwise_array("mask", options.mask, sizes),
        **lengths,
        **segment_arrays(options, sizes),
        **positions,
        window=window_sides(options, causal, sizes),
        query_offset=query_offset,
        normalizer=options.normalizer,
        devices=automatic_devices(query, key, value),
        sink=_sink(options, sizes),
        **dropout_inputs(options),
        **mod_inputs(options, dtype, position_dtype, sizes, (query, key, value)),
    )
    return clean_masked_keys(inputs), sizes


def query_weight_array(weights: Array | None, sizes: Sizes, dtype: jnp.dtype) -> Array:
    """`query_weights` of `attn.attend_pooled` as `[B, T]`; None means 1/T.

    Raises:
      ValueError: the weights are not floating point, `[T]` or `[*B, T]`.
    """
    if weights is None:
        return jnp.full((sizes.B, sizes.T), 1 / (1 if sizes.T == 0 else sizes.T), dtype)
    weights = as_array("query_weights", weights)
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        raise ValueError(f"query_weights is {weights.dtype}: it must be floating point")
    if weights.shape not in ((sizes.T,), (*sizes.batch, sizes.T)):
        raise ValueError(f"query_weights {weights.shape} must be {(sizes.T,)} or {(*sizes.batch, sizes.T)}")
    return jnp.broadcast_to(weights.astype(dtype), (*sizes.batch, sizes.T)).reshape(sizes.B, sizes.T)


def _sink(options: Options, sizes: Sizes) -> Array | None:
    if options.sink is None:
        return jnp.zeros((sizes.K, sizes.R)) if options.normalizer == "softmax1" else None
    if options.normalizer not in WITH_SINK:
        raise ValueError(f"sink with normalizer={options.normalizer!r}: only {' and '.join(WITH_SINK)} have one")
    sink = as_array("sink", options.sink)
    if sink.shape != (sizes.N,) or not jnp.issubdtype(sink.dtype, jnp.floating):
        raise ValueError(f"sink {sink.shape} of {sink.dtype} must be one floating point logit for each head, {(sizes.N,)}")
    return sink.reshape(sizes.K, sizes.R)
