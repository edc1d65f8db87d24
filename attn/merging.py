"""Attention over parts of the keys, merged exactly: the output of each part with its log-sum-exp, and their union.

Ring attention and split decoding compute the parts on several devices (Liu et al. 2023, "Ring attention with blockwise
transformers", section 3).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from attn._dtypes import at_least_float32
from attn._validation import as_array
from attn.kernels import dense
from attn.kernels.chunked import attention as chunked
from attn.kernels.chunked import autodiff
from attn.kernels.explicit_mesh import with_automatic_axes
from attn.kernels.inputs import Inputs
from attn.kernels.options import Options, Sizes, parse_options
from attn.kernels.selection import Implementation, record, select
from attn.kernels.tiles.tiling import Block
from attn.kernels.validation import validate
from attn.kernels.validation.sizes import as_arrays, merge_query_heads
from attn.normalizers import WITH_SINK, finite_max
from attn.shapes import Array, Key, Output, Query, Rows, Value


def attend_with_lse(
    query: Query,
    key: Key,
    value: Value,
    *,
    implementation: Implementation = "auto",
    block: int | tuple[int, int] | None = None,
    **options: Any,
) -> tuple[Output, Rows]:
    """The output of `attn.attend` and the log-sum-exp of its logits, in one pass; both are differentiated.

    Other libraries call it `softmax_lse` (FlashAttention), `return_lse` (FlexAttention) or `return_residual` (`jax.nn`).

    Args:
      query, key, value, block: as in `attn.attend`.
      implementation: as in `attn.attend`, without "fused", whose kernels do not return a log-sum-exp; "auto" is "chunked".
      **options: all other keyword arguments of `attn.attend`: score, scale, bias, mask, query_lengths, key_lengths,
        query_segments, key_segments, causal, window, query_positions, key_positions, score_mod, mask_mod, normalizer, sink,
        dropout_rate, dropout_rng and dropout_offset. Dropout does not change the log-sum-exp.

    Returns:
      The output, `[*B, T, N, V]`, of the value's dtype, the bits that `attn.attend` gives with that implementation; and
      log Σ exp(logits) over the keys, `[*B, N, T]`, of at least float32. It is −inf for a query that may attend to no key, and
      leaves out the sink.

    Raises:
      ValueError: one line with the argument, its shape or value, and the rule. The normaliser must be "softmax" or "softmax1".

    Example:
      >>> outputs, lses = zip(*[attn.attend_with_lse(query, k, v) for k, v in parts])
      >>> output = attn.merge_attention(outputs, lses)
    """
    if implementation == "fused":
        raise ValueError("implementation='fused' returns no log-sum-exp: 'chunked', 'chunked_autodiff' and 'dense' do")
    kernel = "chunked" if implementation == "auto" else implementation

    def run(query: Query, key: Key, value: Value, options: Options) -> tuple[Output, Rows]:
        inputs, sizes = validate(query, key, value, options)
        if inputs.normalizer not in WITH_SINK:
            raise ValueError(f"normalizer={inputs.normalizer!r} has no log-sum-exp: only {' and '.join(WITH_SINK)} have")
        explanation = record(select(query, key, value, options, inputs, kernel, block))
        if sizes.empty:
            rows = jnp.full((*sizes.batch, sizes.N, sizes.T), -jnp.inf, inputs.dtype)
            return jnp.zeros((*query.shape[:-1], value.shape[-1]), value.dtype), rows
        output, lse = _run(inputs, sizes, explanation.implementation, explanation.block)
        return output.astype(value.dtype), lse

    return with_automatic_axes(run, *as_arrays(query, key, value), parse_options("attend_with_lse", options), ("tnv", "nt"))


@functools.partial(jax.jit, static_argnames=("sizes", "implementation", "block"))
def _run(inputs: Inputs, sizes: Sizes, implementation: str, block: Block | None) -> tuple[Output, Rows]:
    if implementation == "dense":
        output, lse = dense.attention_with_lse(inputs)
    else:
        assert block is not None
        output, lse = (chunked if implementation == "chunked" else autodiff).attention(inputs, block)
    return merge_query_heads(output, sizes), lse.reshape(*sizes.batch, sizes.N, sizes.T)


def merge_attention(
    outputs: Sequence[Output], lses: Sequence[Rows] | None, sink: Array | None = None, *, sink_in_outputs: bool = True
) -> Output:
    """Attention over the union of disjoint sets of keys, from the attention over each set. The result is exact.

    Args:
      outputs: the output of `attn.attend` over each set, `[*B, T, N, V]`.
      lses: the log-sum-exp of `attn.attend_with_lse` over each set, `[*B, N, T]`. None is for normalizer="sigmoid", whose
        outputs add up.
      sink: `[N]`, the sink of the whole (zeros for "softmax1"). It counts once, whatever the number of sets.
      sink_in_outputs: whether each output was computed with the sink too, which is so where all sets had the same arguments.

    Returns:
      `[*B, T, N, V]`, of the dtype of the first output.

    Raises:
      ValueError: the numbers or the shapes of outputs and lses differ, or a sink has another shape or no lses.
    """
    if lses is None:
        if sink is not None:
            raise ValueError("sink without lses: outputs of normalizer='sigmoid' have none")
        return functools.reduce(jnp.add, outputs)
    if len(outputs) != len(lses) or not outputs:
        raise ValueError(
            f"{len(outputs)} outputs and {len(lses)} lses: there must be one lse for each output, and at least one output"
        )
    batch_queries_heads = outputs[0].shape[:-1]
    for index, lse in enumerate(lses):
        expected = (*batch_queries_heads[:-2], *reversed(batch_queries_heads[-2:]))
        if jnp.shape(lse) != expected:
            raise ValueError(f"lses[{index}] {jnp.shape(lse)} must be [*B, N, T], {expected} for outputs {outputs[0].shape}")
    sink = None if sink is None else as_array("sink", sink)
    if sink is not None and sink.shape != batch_queries_heads[-1:]:
        raise ValueError(f"sink {sink.shape} must be one logit for each head of outputs {outputs[0].shape}")
    return _merged(tuple(map(jnp.asarray, outputs)), tuple(map(jnp.asarray, lses)), sink, sink_in_outputs)


@functools.partial(jax.jit, static_argnums=3)
def _merged(outputs: tuple[Output, ...], lses: tuple[Rows, ...], sink: Array | None, sink_in_outputs: bool) -> Output:
    dtype = at_least_float32(*(x.dtype for x in (*outputs, *lses)))
    partial = jnp.stack([lse.astype(dtype) for lse in lses])  # [sets, *B, N, T]
    logit = jnp.asarray(-jnp.inf, dtype) if sink is None else sink.astype(dtype)[..., None]
    logit = logit.reshape((1,) * (partial.ndim - logit.ndim) + logit.shape)
    highest = finite_max(lax.stop_gradient(jnp.maximum(jnp.max(partial, axis=0, keepdims=True), logit)))
    # Exponentials and not logarithms of sums, whose derivative is NaN where nothing is in any set.
    of_sets, of_sink = jnp.exp(partial - highest), jnp.exp(logit - highest)
    total = jnp.sum(of_sets, axis=0, keepdims=True) + of_sink
    shares = (of_sets + of_sink if sink_in_outputs else of_sets) / jnp.where(total == 0, 1, total)
    shares = jnp.swapaxes(shares, -1, -2)[..., None]  # [sets, *B, T, N, 1]
    return jnp.sum(shares * jnp.stack([output.astype(dtype) for output in outputs]), axis=0).astype(outputs[0].dtype)
