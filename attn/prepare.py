"""From the arguments of `attn.attend` to what the kernels get. Every rule about an argument is checked here."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn import dropout, scores
from attn.arguments import Arguments
from attn.hidden import hide_keys
from attn.normalizers import NORMALIZERS, WITH_SINK
from attn.scores import Features, Pairwise, nearest
from attn.shapes import Array
from attn.traced import trace

ALIGNMENTS = ("top_left", "bottom_right")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The legend's letters of one call; `batch` is the shape of the batch axes, B their product."""

    batch: tuple[int, ...]
    T: int
    S: int
    N: int
    K: int

    @property
    def nothing(self) -> bool:
        """Whether there is no pair of a query and a key."""
        return 0 in (self.B, self.T, self.S)

    @property
    def B(self) -> int:  # noqa: N802
        return math.prod(self.batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The keyword arguments of `attn.attend` that say what is computed, with their defaults."""

    score: Any = "scaled_dot"
    scale: Any = None
    bias: Any = None
    mask: Any = None
    query_lengths: Any = None
    key_lengths: Any = None
    query_segments: Any = None
    key_segments: Any = None
    causal: Any = None
    window: Any = None
    query_positions: Any = None
    key_positions: Any = None
    score_mod: Any = None
    mask_mod: Any = None
    normalizer: str = "softmax"
    sink: Any = None
    dropout_rate: float = 0.0
    dropout_rng: Any = None
    dropout_offset: Any = 0

    @property
    def positioned(self) -> bool:
        return self.query_positions is not None or self.key_positions is not None

    @property
    def masked(self) -> bool:
        masks = (self.mask, self.query_lengths, self.key_lengths, self.query_segments, self.window, self.mask_mod)
        return self.causal not in (None, False) or any(mask is not None for mask in masks)


def as_arrays(query: Any, key: Any, value: Any) -> tuple[Array, Array, Array]:
    """Raises ValueError where one of them is no array."""
    return as_array("query", query), as_array("key", key), as_array("value", value)


def prepare(query: Array, key: Array, value: Array, options: Options) -> tuple[Arguments, Sizes]:
    """The checked arguments in the kernels' layout.

    Raises:
      ValueError: one line with the argument, its shape or value, and the rule.
    """
    sizes = _sizes(query, key, value)
    nearest("normalizer", options.normalizer, NORMALIZERS)
    dtype = jnp.result_type(query, key, value, jnp.float32)
    causal, query_offset = _causal(options, sizes)
    arguments = Arguments(
        **_scored(query, key, options, dtype, sizes),
        value=_by_head(value, sizes),
        bias=_pairs("bias", options.bias, sizes),
        mask=_pairs("mask", options.mask, sizes),
        query_lengths=_lengths("query_lengths", options.query_lengths, sizes),
        key_lengths=_lengths("key_lengths", options.key_lengths, sizes),
        **_segments(options, sizes),
        query_positions=_sequence("query_positions", options.query_positions, sizes, sizes.T),
        key_positions=_sequence("key_positions", options.key_positions, sizes, sizes.S),
        window=_window(options, causal, sizes),
        query_offset=query_offset,
        normalizer=options.normalizer,
        sink=_sink(options, sizes),
        **_dropped(options),
        **_modified(options, dtype, (query, key, value)),
    )
    return hide_keys(arguments), sizes


def _sizes(query: Array, key: Array, value: Array) -> Sizes:
    for name, array in {"query": query, "key": key, "value": value}.items():
        if array.ndim < 3 or array.ndim != query.ndim:
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
        raise ValueError(f"query {query.shape} has {heads} heads, no multiple of the {key_heads} heads of key {key.shape}")
    return Sizes(tuple(batch), length, keys, heads, key_heads)


def _scored(query: Array, key: Array, options: Options, dtype: jnp.dtype, sizes: Sizes) -> dict[str, Any]:
    score = scores.resolve(options.score)
    if isinstance(score, Features | Pairwise):
        score.check(query.shape[-1], key.shape[-1], sizes.N)
    scale = options.scale if options.scale is None else as_array("scale", options.scale)
    if scale is not None and (scale.shape != () or jnp.issubdtype(scale.dtype, jnp.complexfloating)):
        raise ValueError(f"scale has shape {scale.shape} and dtype {scale.dtype}: it must be a real scalar")
    if isinstance(score, Features):
        scale = score.default_scale(query.shape[-1]) if scale is None else scale
        scaled = _features(lambda x: score.query_features(x) * jnp.asarray(scale, dtype), query.astype(dtype), options.masked)
        if type(score).key_features is not Features.key_features:
            key = _features(score.key_features, key.astype(dtype), options.masked)
        return {"query": _queries_by_head(scaled, sizes), "key": _by_head(key, sizes)}
    vectors = (jax.ShapeDtypeStruct(x.shape[-1:], dtype) for x in (query, key))
    program, captured, result = trace("score", score, *vectors, like=(query, key))
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"score returns {result.dtype}: it must return a floating point score")
    return {
        "query": _queries_by_head(query, sizes),
        "key": _by_head(key, sizes),
        "score": program,
        "score_captured": captured,
        "score_scale": None if scale is None else jnp.asarray(scale, dtype),
    }


def _features(function, x: Array, masked: bool) -> Array:
    """function(x), where a vector with NaN or Inf becomes NaN and gets no gradient: what is masked later must not leak."""
    if not masked:
        return function(x)
    sound = jnp.all(jnp.isfinite(x), axis=-1, keepdims=True)
    return jnp.where(sound, function(jnp.where(sound, x, 0)), jnp.nan)


def _by_head(array: Array, sizes: Sizes) -> Array:
    """`[*B, length, heads, C]` as `[B, heads, length, C]`."""
    *_, length, heads, channels = array.shape
    return jnp.moveaxis(array.reshape(sizes.B, length, heads, channels), 1, 2)


def _queries_by_head(query: Array, sizes: Sizes) -> Array:
    """`[*B, T, N, H]` as `[B, K, R, T, H]`."""
    return _by_head(query, sizes).reshape(sizes.B, sizes.K, sizes.N // sizes.K, sizes.T, query.shape[-1])


def _pairs(name: str, array: Any, sizes: Sizes) -> Array | None:
    """A bias or mask `[*B, N, T, S]`, each axis full or 1, as `[B|1, K|1, R|1, T|1, S|1]`."""
    if array is None:
        return None
    array = as_array(name, array)
    if name == "mask" and array.dtype != jnp.bool_:
        raise ValueError(f"mask is {array.dtype}: it must be bool, True means may attend; additive terms are bias")
    if name == "bias" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"bias is {array.dtype}: it must be floating point; who may attend is mask")
    full = (*sizes.batch, sizes.N, sizes.T, sizes.S)
    if array.ndim != len(full) or any(n not in (1, f) for n, f in zip(array.shape, full, strict=True)):
        raise ValueError(f"{name} {array.shape} does not broadcast to the scores {full}: same rank, each axis full or 1")
    batch, (heads, *lengths) = array.shape[:-3], array.shape[-3:]
    if any(n != 1 for n in batch):
        array = jnp.broadcast_to(array, (*sizes.batch, heads, *lengths))
    rows = sizes.B if any(n != 1 for n in batch) else 1
    split = (1, 1) if heads == 1 else (sizes.K, sizes.N // sizes.K)
    return array.reshape(rows, *split, *lengths)


def _lengths(name: str, lengths: Any, sizes: Sizes) -> Array | None:
    if lengths is None:
        return None
    lengths = _integers(name, lengths)
    if lengths.shape != sizes.batch:
        raise ValueError(f"{name} {lengths.shape} must have the shape of the batch axes {sizes.batch}")
    return lengths.reshape(sizes.B)


def _sequence(name: str, array: Any, sizes: Sizes, length: int) -> Array | None:
    """Positions or segments, `[length]` for all examples or `[*B, length]`, as `[B|1, length]`."""
    if array is None:
        return None
    array = _integers(name, array)
    if array.shape not in ((length,), (*sizes.batch, length)):
        raise ValueError(f"{name} {array.shape} must be {(length,)} or {(*sizes.batch, length)}")
    return array.reshape(array.size // length if length else 1, length)


def _integers(name: str, array: Any) -> Array:
    array = as_array(name, array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name} is {array.dtype}: it must be integers")
    return array.astype(jnp.int32)  # differences of unsigned or narrow ones would wrap


def as_array(name: str, array: Any) -> Array:
    try:
        return jnp.asarray(array)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={array!r} is {type(array).__name__}: it must be an array") from None


def _segments(options: Options, sizes: Sizes) -> dict[str, Any]:
    query, key = options.query_segments, options.key_segments
    if (query is None) != (key is None):
        missing = "query_segments" if query is None else "key_segments"
        raise ValueError(f"{missing} is missing: segments are given for queries and keys, or for neither")
    return {
        "query_segments": _sequence("query_segments", query, sizes, sizes.T),
        "key_segments": _sequence("key_segments", key, sizes, sizes.S),
    }


def _causal(options: Options, sizes: Sizes) -> tuple[bool, int]:
    """Whether it is causal, and the position of query 0 where key 0 has position 0."""
    causal = options.causal
    if isinstance(causal, bool | np.bool_) or causal is None:
        causal = bool(causal)
    if causal is False:
        return False, 0
    if causal is True:
        if not options.positioned and sizes.T != sizes.S:
            raise ValueError(
                f"causal=True with T={sizes.T} and S={sizes.S}: name an alignment, {' or '.join(map(repr, ALIGNMENTS))}"
            )
        return True, 0
    if not isinstance(causal, str):
        raise ValueError(f"causal={causal!r} must be True, False or an alignment, {' or '.join(map(repr, ALIGNMENTS))}")
    nearest("causal", causal, ALIGNMENTS)
    if options.positioned:
        raise ValueError(f"causal={causal!r} with positions: they say where queries and keys are; pass causal=True")
    return True, sizes.S - sizes.T if causal == "bottom_right" else 0


def _window(options: Options, causal: bool, sizes: Sizes) -> tuple[int | None, int | None]:
    """How far before and after a query's position its keys may be; causality leaves none after it."""
    window = options.window
    if window is None:
        return None, 0 if causal else None
    sides = tuple(window) if isinstance(window, tuple | list) else ()
    if len(sides) != 2 or any(side is not None and (type(side) is not int or side < 0) for side in sides):
        raise ValueError(f"window={window!r} must be (left, right), each None or an int of at least 0")
    if not (causal or options.positioned) and sizes.T != sizes.S:
        raise ValueError(
            f"window={window!r} with T={sizes.T} and S={sizes.S}: name an alignment with causal, or pass positions"
        )
    return (sides[0], 0) if causal else sides


def _sink(options: Options, sizes: Sizes) -> Array | None:
    if options.sink is None:
        return jnp.zeros((sizes.K, sizes.N // sizes.K)) if options.normalizer == "softmax1" else None
    if options.normalizer not in WITH_SINK:
        raise ValueError(f"sink with normalizer={options.normalizer!r}: only {' and '.join(WITH_SINK)} have one")
    sink = as_array("sink", options.sink)
    if sink.shape != (sizes.N,) or not jnp.issubdtype(sink.dtype, jnp.floating):
        raise ValueError(f"sink {sink.shape} of {sink.dtype} must be one floating point logit for each head, {(sizes.N,)}")
    return sink.reshape(sizes.K, sizes.N // sizes.K)


def _dropped(options: Options) -> dict[str, Any]:
    rate = options.dropout_rate
    dropout.check_rate("dropout_rate", rate)
    if rate == 0:
        return {}
    if options.dropout_rng is None:
        raise ValueError(f"dropout_rate={rate} needs dropout_rng, a key of jax.random")
    try:
        rng = dropout.words(options.dropout_rng)
    except (TypeError, ValueError):
        raise ValueError(f"dropout_rng={options.dropout_rng!r} must be one key of jax.random") from None
    offset = options.dropout_offset if isinstance(options.dropout_offset, tuple) else (options.dropout_offset, 0)
    if len(offset) != 2 or not all(map(_is_index, offset)):
        raise ValueError(f"dropout_offset={options.dropout_offset!r} must be an integer, or two of them: (batch, head)")
    return {
        "rng": rng,
        "index_offset": jnp.stack([jnp.asarray(n, jnp.int32) for n in offset]),
        "dropout_rate": float(rate),
    }


def _is_index(number: Any) -> bool:
    if isinstance(number, int):
        return not isinstance(number, bool) and 0 <= number < 2**31
    return hasattr(number, "dtype") and number.shape == () and jnp.issubdtype(number.dtype, jnp.integer)


def _modified(options: Options, dtype: jnp.dtype, like: Any) -> dict[str, Any]:
    index, found = jax.ShapeDtypeStruct((), jnp.int32), {}
    for name, function, first in (
        ("score_mod", options.score_mod, (jax.ShapeDtypeStruct((), dtype),)),
        ("mask_mod", options.mask_mod, ()),
    ):
        if function is None:
            continue
        if not callable(function):
            raise ValueError(f"{name}={function!r} must be a function")
        program, captured, result = trace(name, function, *first, index, index, index, index, like=like)
        if (result.dtype == jnp.bool_) != (name == "mask_mod"):
            raise ValueError(f"{name} returns {result.dtype}: score_mod returns a score, mask_mod a bool")
        found |= {name: program, f"{name}_captured": captured}
    return found
