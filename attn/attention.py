"""The entry points: they validate the arguments, run the implementation that is selected for them, and explain the choice."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attn.kernels import dense
from attn.kernels import pooled as pooled_kernel
from attn.kernels.chunked import attention as chunked
from attn.kernels.chunked import autodiff
from attn.kernels.explicit_mesh import with_automatic_axes
from attn.kernels.fused import attention as fused
from attn.kernels.inputs import Inputs
from attn.kernels.masking import clean_unweighted_queries
from attn.kernels.options import Options, Sizes, parse_options
from attn.kernels.selection import Explanation, Implementation, record, select, select_pooled
from attn.kernels.tiles.tiling import Block, choose_block
from attn.kernels.validation import query_weight_array, validate
from attn.kernels.validation.sizes import as_arrays, merge_query_heads
from attn.scores import Score
from attn.shapes import Array, Bias, Key, Mask, Output, Pooled, Query, Scale, Value, Weights


def attend(
    query: Query,
    key: Key,
    value: Value,
    *,
    score: Score = "scaled_dot",
    scale: Scale | None = None,
    bias: Bias | None = None,
    mask: Mask | None = None,
    query_lengths: Array | None = None,
    key_lengths: Array | None = None,
    query_segments: Array | None = None,
    key_segments: Array | None = None,
    causal: bool | str | None = None,
    window: tuple[int | None, int | None] | None = None,
    query_positions: Array | None = None,
    key_positions: Array | None = None,
    score_mod: Callable[..., Any] | None = None,
    mask_mod: Callable[..., Any] | None = None,
    normalizer: str = "softmax",
    sink: Array | None = None,
    dropout_rate: float = 0.0,
    dropout_rng: Array | None = None,
    dropout_offset: Any = 0,
    implementation: Implementation = "auto",
    block: int | tuple[int, int] | None = None,
) -> Output:
    """Attention with any score: normalize(score_mod(scale · score(q, k)) + bias, masked) v, exact, in linear memory.

    Everything is computed in at least float32. The defaults give scaled dot-product attention (Vaswani et al. 2017, section
    3.2.1). A query that may attend to no key gets 0, and NaN or Inf reaches exactly the queries that may attend to it.

    Args:
      query: `[*B, T, N, H]`, floating point.
      key: `[*B, S, K, H]`. N is a multiple of K: query head n reads key and value head n // (N / K).
      value: `[*B, S, K, V]`.
      score: a name of `attn.scores.NAMES`, a score with parameters such as `attn.scores.additive(vector)`, or any function
        of one query and one key vector. Gradients also reach the arrays that it captured.
      scale: a scalar that multiplies the score. None means 1/√H for "scaled_dot", else 1.
      bias: floating point, `[*B, N, T, S]`, each axis full or 1; added after `score_mod`.
      mask: bool, of the same shape; True means may attend.
      query_lengths, key_lengths: integers `[*B]`; queries and keys at and after them are masked. The largest integer of any
        width, signed or not, means no limit.
      query_segments, key_segments: integers `[T]` and `[S]`, or with `*B` before; equal ones may attend to each other.
      causal: True needs T = S, or positions. Otherwise say "top_left" (query 0 is at key 0) or "bottom_right" (the last query
        is at the last key; where there are lengths, the last real query of each example at its last real key).
      window: (left, right), inclusive: how far before and after a query's position its keys may be. None, or sys.maxsize,
        is open.
      query_positions, key_positions: integers shaped as segments; what causality, the window, score_mod and mask_mod go by.
        None means 0, 1, 2, …; with causal="bottom_right" the queries begin at S − T, or at key length − query length. Positions
        of NumPy beyond 32 bits need jax_enable_x64, unless no mod reads them.
      score_mod: a function (score, batch, head, query_position, key_position) -> score of scalars. Gradients also reach the
        arrays that it captured. `attn.score_mods` has common ones.
      mask_mod: a function (batch, head, query_position, key_position) -> bool.
      normalizer: "softmax", "softmax1" (a sink of 0), "sigmoid", "sparsemax" or "entmax15"; the last two run only as "dense".
      sink: `[N]`, for each head the score of one more key, whose value is 0.
      dropout_rate: in [0, 1); the weights that are kept are divided by 1 − rate, after the normaliser.
      dropout_rng: a key of `jax.random`. Which weights are kept is a function of it and of the indices of batch, head,
        query and key alone: not of the implementation, the block, a shard or a microbatch (see `dropout_offset`).
      dropout_offset: index of the first batch row in the whole, or (batch, head), for shards and under `jax.vmap`.
      implementation: "dense" is the definition, O(T · S) memory. "chunked" is linear in memory, with a backward pass of
        its own; forward mode goes through "chunked_autodiff", its twin, which JAX differentiates. "fused" is a vendor's kernel
        (cuDNN, splash attention), with first derivatives in reverse mode alone.
        "auto" takes the fastest that honours every argument; `attn.explain` tells which.
      block: queries and keys in a tile of "chunked", one int or two. None lets the library choose.

    Returns:
      The output, `[*B, T, N, V]`, of the value's dtype.

    Raises:
      ValueError: one line with the argument, its shape or value, and the rule.

    Example:
      >>> output = attn.attend(query, key, value, score="additive", causal=True)
      >>> output = attn.attend(query, key, value, score_mod=attn.score_mods.alibi(num_heads=8), key_lengths=lengths)
    """
    options = Options(
        score=score,
        scale=scale,
        bias=bias,
        mask=mask,
        query_lengths=query_lengths,
        key_lengths=key_lengths,
        query_segments=query_segments,
        key_segments=key_segments,
        causal=causal,
        window=window,
        query_positions=query_positions,
        key_positions=key_positions,
        score_mod=score_mod,
        mask_mod=mask_mod,
        normalizer=normalizer,
        sink=sink,
        dropout_rate=dropout_rate,
        dropout_rng=dropout_rng,
        dropout_offset=dropout_offset,
    )

    def run(query: Query, key: Key, value: Value, options: Options) -> Output:
        inputs, sizes = validate(query, key, value, options)
        explanation = record(select(query, key, value, options, inputs, implementation, block))
        return _outputs(query, key, value, options, inputs, sizes, explanation)

    return with_automatic_axes(run, *as_arrays(query, key, value), options, "tnv")


def attend_pooled(
    query: Query,
    key: Key,
    value: Value,
    *,
    query_weights: Array | None = None,
    implementation: Implementation = "auto",
    block: int | tuple[int, int] | None = None,
    **options: Any,
) -> Pooled:
    """The mean, or any weighted sum, of `attn.attend` over the queries: Σ_t query_weights[t] · attend(query, key, value)[t].

    Where all queries may attend to the same keys and a single tile holds everything, the weights are summed over the queries
    before they are multiplied by the values, which needs about half of the products. `attn.explain(..., pooled=True)` calls
    this "pooled". Otherwise the outputs are summed, without those of weight 0.

    Args:
      query, key, value: as in `attn.attend`.
      query_weights: floating point, `[T]` or `[*B, T]`; differentiated. None means 1/T, which gives the mean.
      implementation, block: as in `attn.attend`. If either is given, "pooled" is not used, and the outputs of that
        implementation are summed.
      **options: all other keyword arguments of `attn.attend`: score, scale, bias, mask, query_lengths, key_lengths,
        query_segments, key_segments, causal, window, query_positions, key_positions, score_mod, mask_mod, normalizer, sink,
        dropout_rate, dropout_rng and dropout_offset.

    Returns:
      `[*B, N, V]`, of the value's dtype.

    Raises:
      ValueError: one line with the argument, its shape or value, and the rule.
    """

    def run(query: Query, key: Key, value: Value, options: Options, query_weights: Array | None) -> Pooled:
        inputs, sizes = validate(query, key, value, options)
        weights = query_weight_array(query_weights, sizes, inputs.dtype)
        inputs = clean_unweighted_queries(inputs, weights)
        explanation = record(select_pooled(query, key, value, options, inputs, implementation, block))
        if explanation.implementation == "pooled" and not sizes.empty:
            output = _run_pooled(inputs, weights)
            return output.reshape(*sizes.batch, sizes.N, value.shape[-1]).astype(value.dtype)
        output = _outputs(query, key, value, options, inputs, sizes, explanation)
        weights = weights.reshape(*sizes.batch, sizes.T)[..., None, None]
        output = jnp.where((weights != 0) | jnp.isfinite(output), output, 0)  # 0 · NaN would be NaN
        return jnp.sum(output.astype(weights.dtype) * weights, axis=-3).astype(value.dtype)

    chosen = parse_options("attend_pooled", options)
    return with_automatic_axes(run, *as_arrays(query, key, value), chosen, "nv", query_weights)


def attention_weights(
    query: Query,
    key: Key,
    value: Value | None = None,
    *,
    after_dropout: bool = False,
    implementation: Implementation = "auto",
    **options: Any,
) -> Weights:
    """The weights that `attn.attend` gives the values for the same arguments, as one array of O(T · S) memory.

    Args:
      query, key: as in `attn.attend`.
      value: may be left out, since the weights do not depend on it.
      after_dropout: whether dropout is applied to the weights.
      implementation: "auto" or "dense"; the other implementations never hold the weights.
      **options: all other keyword arguments of `attn.attend` but `block`: score, scale, bias, mask, query_lengths,
        key_lengths, query_segments, key_segments, causal, window, query_positions, key_positions, score_mod, mask_mod,
        normalizer, sink, dropout_rate, dropout_rng and dropout_offset.

    Returns:
      `[*B, N, T, S]`, of at least float32. Before dropout a row of "softmax" sums to 1, to 0 where the query has no key, and
      to less than 1 where a sink takes its share.

    Raises:
      ValueError: one line with the argument, its shape or value, and the rule.
    """
    if implementation not in ("auto", "dense"):
        raise ValueError(f"implementation={implementation!r} has no weights to return: only 'dense' has")

    def run(query: Query, key: Key, value: Value, options: Options) -> Weights:
        inputs, sizes = validate(query, key, value, options)
        shape = (*sizes.batch, sizes.N, sizes.T, sizes.S)
        if sizes.empty:
            return jnp.zeros(shape, inputs.dtype)
        return jax.jit(dense.attention_weights, static_argnums=1)(inputs, after_dropout).reshape(shape)

    arrays = as_arrays(query, key, key if value is None else value)
    return with_automatic_axes(run, *arrays, parse_options("attention_weights", options), "nts")


def explain(
    query: Query,
    key: Key,
    value: Value,
    *,
    implementation: Implementation = "auto",
    block: int | tuple[int, int] | None = None,
    pooled: bool = False,
    **options: Any,
) -> Explanation:
    """Which implementation `attn.attend` would run for the same arguments, and what rules out each of the others.

    Args:
      query, key, value, implementation, block: as in `attn.attend`.
      pooled: whether to explain `attn.attend_pooled` instead: "pooled", or the implementation whose outputs are summed.
      **options: all other keyword arguments of `attn.attend`: score, scale, bias, mask, query_lengths, key_lengths,
        query_segments, key_segments, causal, window, query_positions, key_positions, score_mod, mask_mod, normalizer, sink,
        dropout_rate, dropout_rng and dropout_offset.

    Returns:
      An explanation with the fields `implementation`, `block` and `others`; `print` shows all of it.

    Raises:
      ValueError: one line with the argument, its shape or value, and the rule.

    Example:
      >>> print(attn.explain(query, key, value, causal=True))
      chunked, tiles of 256 queries by 256 keys
        not fused: needs an NVIDIA GPU or a TPU: this is cpu
        not chunked_autodiff: 'chunked' computes the same, with a faster backward pass
        not dense: it keeps all T × S weights, and is slower
    """
    explanations = []

    def run(query: Query, key: Key, value: Value, options: Options) -> tuple[()]:
        inputs, _ = validate(query, key, value, options)
        explanations.append((select_pooled if pooled else select)(query, key, value, options, inputs, implementation, block))
        return ()

    with_automatic_axes(run, *as_arrays(query, key, value), parse_options("explain", options), ())
    return explanations[0]


def _outputs(
    query: Query, key: Key, value: Value, options: Options, inputs: Inputs, sizes: Sizes, explanation: Explanation
) -> Output:
    if sizes.empty:
        return jnp.zeros((*query.shape[:-1], value.shape[-1]), value.dtype)
    if explanation.implementation == "fused":
        block = choose_block(inputs, None)
        return fused.attention(query, key, value, options, inputs, lambda: _run(inputs, sizes, "chunked", block))
    return _run(inputs, sizes, explanation.implementation, explanation.block).astype(value.dtype)


@functools.partial(jax.jit, static_argnames=("sizes", "implementation", "block"))
def _run(inputs: Inputs, sizes: Sizes, implementation: str, block: Block | None) -> Output:
    if implementation == "dense":
        output = dense.attention(inputs)
    else:
        assert block is not None
        kernel = chunked if implementation == "chunked" else autodiff
        output, _ = kernel.attention(inputs, block)
    return merge_query_heads(output, sizes)


@jax.jit
def _run_pooled(inputs: Inputs, query_weights: Array) -> Array:
    return pooled_kernel.attention(inputs, query_weights)
