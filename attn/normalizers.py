"""Functions from logits to weights over the last axis. A masked logit is −inf; a row of masked logits only has weights 0."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from attn.shapes import Array

# A sink is an extra logit for each head, which takes weight but has no value. For softmax1 it is 0 where none is given.
WITH_SINK = ("softmax", "softmax1")


def softmax(logits: Array, sink: Array | None = None) -> Array:
    """exp(logit) / (Σ exp(logits) + exp(sink)), computed stably. `sink` broadcasts to the logits, with a last axis of 1."""
    weights, total, _ = exponentials(logits, sink)
    return weights / total


def exponentials(logits: Array, sink: Array | None) -> tuple[Array, Array, Array | None]:
    """exp(logit − highest) for the highest logit of each row, the sum of each row, and exp(sink − highest).

    The sum includes the sink; it is 1 for a row with neither a key nor a sink.
    """
    highest = jnp.max(logits, axis=-1, keepdims=True, initial=-jnp.inf)
    highest = finite_max(lax.stop_gradient(highest if sink is None else jnp.maximum(highest, sink)))
    of_keys = jnp.exp(logits - highest)
    of_sink = None if sink is None else jnp.exp(sink - highest)
    total = jnp.sum(of_keys, axis=-1, keepdims=True)
    total = total if of_sink is None else total + of_sink
    return of_keys, jnp.where(total == 0, 1, total), of_sink


def finite_max(highest: Array) -> Array:
    """The highest logit of a row, and 0 in place of −inf for a row without a key, since −inf − (−inf) is NaN."""
    return jnp.where(highest == -jnp.inf, 0, highest)


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(−logit)) for each weight on its own (Ramapuram et al. 2025, "Theory of sigmoid self-attention")."""
    return jax.nn.sigmoid(logits)


@jax.custom_jvp
def sparsemax(logits: Array) -> Array:
    """The Euclidean projection of the logits onto the simplex (Martins and Astudillo 2016, algorithm 1)."""
    z = _shifted(logits)
    ordered = -jnp.sort(-z, axis=-1)
    count = _ranks(z)
    thresholds = (jnp.cumsum(ordered, axis=-1) - 1) / count
    return _attended(logits, jnp.maximum(z - _last(thresholds, ordered > thresholds), 0))


@jax.custom_jvp
def entmax15(logits: Array) -> Array:
    """Entmax with α = 1.5 (Peters, Niculae and Martins 2019, appendix C.2): sparse, and exact by sorting."""
    z = _shifted(logits) / 2
    ordered = -jnp.sort(-z, axis=-1)
    count = _ranks(z)
    mean = jnp.cumsum(ordered, axis=-1) / count
    spread = jnp.cumsum(jnp.square(ordered), axis=-1) - count * jnp.square(mean)
    thresholds = mean - jnp.sqrt(jnp.maximum((1 - spread) / count, 0))
    return _attended(logits, jnp.square(jnp.maximum(z - _last(thresholds, ordered >= thresholds), 0)))


@sparsemax.defjvp
def _(primals, tangents):
    weights = sparsemax(*primals)
    return weights, _tangent((weights > 0).astype(weights.dtype), *tangents)


@entmax15.defjvp
def _(primals, tangents):
    weights = entmax15(*primals)
    attended = weights > 0  # the root has no derivative at 0, which a second derivative would need
    slopes = jnp.where(attended, jnp.sqrt(jnp.where(attended, weights, 1)), 0)
    return weights, _tangent(slopes, *tangents)


NORMALIZERS: dict[str, Callable[..., Array]] = {
    "softmax": softmax,
    "softmax1": softmax,
    "sigmoid": sigmoid,
    "sparsemax": sparsemax,
    "entmax15": entmax15,
}


def normalize(name: str, logits: Array, sink: Array | None) -> Array:
    """The weights `[.., S]` of logits `[.., S]`; `sink` is None or broadcasts to them, last axis 1."""
    return softmax(logits, sink) if name in WITH_SINK else NORMALIZERS[name](logits)


def _ranks(z: Array) -> Array:
    """1, 2, 3, … along the last axis, of the rank of `z`."""
    return jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype).reshape((1,) * (z.ndim - 1) + (-1,))


def _shifted(logits: Array) -> Array:
    """The logits less their maximum; masked ones become −4, which lies outside of every support but keeps the sums finite."""
    return jnp.maximum(logits - finite_max(jnp.max(logits, axis=-1, keepdims=True)), -4)


def _last(thresholds: Array, inside: Array) -> Array:
    size = jnp.maximum(jnp.sum(inside, axis=-1, keepdims=True), 1)
    return jnp.take_along_axis(thresholds, size - 1, axis=-1)


def _attended(logits: Array, weights: Array) -> Array:
    return jnp.where(logits == -jnp.inf, 0, weights)


def _tangent(slopes: Array, tangent: Array) -> Array:
    """slopes · (tangent − mean of the tangent weighted by the slopes), which is the Jacobian of both functions."""
    total = jnp.sum(slopes, axis=-1, keepdims=True)
    mean = jnp.sum(slopes * tangent, axis=-1, keepdims=True) / jnp.where(total == 0, 1, total)
    return slopes * (tangent - mean)
