"""The functions that a caller passes: score, score_mod and mask_mod."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attn._dtypes import at_least_float32
from attn._integers import as_positions
from attn._validation import as_array
from attn.kernels.closures import Program, trace
from attn.kernels.options import Options, Sizes
from attn.kernels.validation.sizes import split_heads, split_query_heads
from attn.scores import Features, Pairwise, resolve
from attn.shapes import Array, Key, Query, Value


def score_inputs(query: Query, key: Key, options: Options, dtype: jnp.dtype, sizes: Sizes) -> dict[str, Any]:
    """Query and key of `Inputs`: features of an inner product, scaled, or vectors that a pairwise score is applied to."""
    score = resolve(options.score)
    if isinstance(score, Features | Pairwise):
        score.check(query.shape[-1], key.shape[-1], sizes.N)
    scale = options.scale if options.scale is None else as_array("scale", options.scale)
    if scale is not None and (scale.shape != () or jnp.issubdtype(scale.dtype, jnp.complexfloating)):
        raise ValueError(f"scale has shape {scale.shape} and dtype {scale.dtype}: it must be a real scalar")
    if isinstance(score, Features):
        scale = score.default_scale(query.shape[-1]) if scale is None else scale
        features = _finite_features(lambda x: score.query_features(x) * jnp.asarray(scale, dtype), query.astype(dtype), options)
        if type(score).key_features is not Features.key_features:
            key = _finite_features(score.key_features, key.astype(dtype), options)
        return {"query": split_query_heads(features, sizes), "key": split_heads(key, sizes)}
    if sizes.empty:
        return {"query": split_query_heads(query, sizes), "key": split_heads(key, sizes)}
    vectors = (jax.ShapeDtypeStruct(x.shape[-1:], dtype) for x in (query, key))
    program, captured, result = trace("score", score, *vectors, like=(query, key))
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"score returns {result.dtype}: it must return a floating point score")
    return {
        "query": split_query_heads(query, sizes),
        "key": split_heads(key, sizes),
        "score": program,
        "score_captured": captured,
        "score_scale": None if scale is None else jnp.asarray(scale, dtype),
    }


def mod_inputs(options: Options, dtype: jnp.dtype, position_dtype: Any, sizes: Sizes, like: Any) -> dict[str, Any]:
    """The programs of score_mod and mask_mod and the arrays that they captured.

    Where there is no pair, neither is called: what they capture may have no entry that they could read.
    """
    fields = {}
    for name, function in (("score_mod", options.score_mod), ("mask_mod", options.mask_mod)):
        if function is None:
            continue
        if not callable(function):
            raise ValueError(f"{name}={function!r} must be a function")
        if sizes.empty:
            continue
        program, captured, result = trace(name, function, *_mod_arguments(name, dtype, position_dtype), like=like)
        if (result.dtype == jnp.bool_) != (name == "mask_mod"):
            raise ValueError(f"{name} returns {result.dtype}: score_mod returns a score, mask_mod a bool")
        fields |= {name: program, f"{name}_captured": captured}
    return fields


def hoist_functions(query: Query, key: Key, value: Value, options: Options) -> Options:
    """The options with functions that are pytrees of the arrays that they captured."""
    dtype = at_least_float32(query.dtype, key.dtype, value.dtype)
    positions = as_positions(True, query_positions=options.query_positions, key_positions=options.key_positions)
    position_dtype = next((x.dtype for x in positions.values() if x is not None), jnp.int32)
    arguments: dict[str, Any] = {name: _mod_arguments(name, dtype, position_dtype) for name in ("score_mod", "mask_mod")}
    arguments["score"] = [jax.ShapeDtypeStruct(x.shape[-1:], dtype) for x in (query, key)]
    hoisted = {}
    for name, examples in arguments.items():
        function = getattr(options, name)
        if callable(function) and not isinstance(function, Features | Pairwise | type):
            program, captured, _ = trace(name, function, *examples, like=(query, key, value))
            # Evaluated equation by equation, because a compiled inner function belongs to the mesh that it was traced in.
            hoisted[name] = jax.tree_util.Partial(Program(program.jaxpr, sharded=True), captured)
    return dataclasses.replace(options, **hoisted)


def _mod_arguments(name: str, dtype: Any, position_dtype: Any) -> list[jax.ShapeDtypeStruct]:
    """(score, batch, head, query_position, key_position), without the score for mask_mod."""
    score = [jax.ShapeDtypeStruct((), dtype)] if name == "score_mod" else []
    index, position = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), position_dtype)
    return [*score, index, index, position, position]


def _finite_features(function: Callable[[Array], Array], x: Array, options: Options) -> Array:
    """function(x), where a vector with NaN or Inf becomes NaN and gets no gradient, since it may be masked later."""
    if not options.has_mask:
        return function(x)
    finite = jnp.all(jnp.isfinite(x), axis=-1, keepdims=True)
    return jnp.where(finite, function(jnp.where(finite, x, 0)), jnp.nan)
