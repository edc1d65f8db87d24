"""Attention and its gradients in float64 NumPy with explicit loops: an independent truth, written for reading.

Derivatives of a score or a normaliser are complex steps, Im f(x + ih) / h with h = 1e-30, which are exact to rounding. So
both are written for complex numbers too.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 1e-30


def softmax(logits, sink=None):
    """Of the logits of one row, those of masked keys left out; `sink` takes its part."""
    highest = max([x.real for x in logits] + ([] if sink is None else [np.real(sink)]))
    powers = [np.exp(x - highest) for x in logits]
    total = sum(powers) + (0 if sink is None else np.exp(sink - highest))
    return [power / total for power in powers]


def sigmoid(logits, sink=None):
    assert sink is None
    return [1 / (1 + np.exp(-x)) for x in logits]


def sparsemax(logits, sink=None):
    """By its definition: the support is the largest set whose members are above the threshold that they share."""
    return _on_support(logits, lambda chosen: [(sum(chosen) - 1) / len(chosen)], lambda x, threshold: x - threshold)


def entmax15(logits, sink=None):
    """By its definition: Σ (z/2 − threshold)² = 1 over the largest set above the threshold, a quadratic equation."""

    def thresholds(chosen):
        half = [x / 2 for x in chosen]
        mean, square = sum(half) / len(half), sum(x * x for x in half) / len(half)
        inside = mean * mean - square + 1 / len(half)
        return [mean - np.sqrt(inside)] if inside.real >= 0 else []

    return _on_support(logits, thresholds, lambda x, threshold: (x / 2 - threshold) ** 2, lambda x: x / 2)


def _on_support(logits, thresholds, weight, scaled=lambda x: x):
    order = sorted(range(len(logits)), key=lambda i: -logits[i].real)
    for size in range(len(logits), 0, -1):
        chosen = order[:size]
        for threshold in thresholds([logits[i] for i in chosen]):
            if all(scaled(logits[i]).real > threshold.real for i in chosen):
                return [weight(x, threshold) if i in chosen else 0 * x for i, x in enumerate(logits)]
    raise AssertionError("no support")


def scaled_dot(query, key, parameters):
    return (query @ key) / math.sqrt(len(query))


@dataclasses.dataclass
class Result:
    """Arrays in the layout of `attn.attend`. `gradients` has query, key, value, bias, and each of the parameters."""

    output: np.ndarray  # [B, T, N, V]
    weights: np.ndarray  # [B, N, T, S], before dropout
    logits: np.ndarray  # the same, −inf where masked
    lse: np.ndarray  # [B, N, T]
    gradients: dict[str, np.ndarray]


def attend(
    query,
    key,
    value,
    cotangent=None,
    *,
    score: Callable[..., Any] = scaled_dot,
    score_mod: Callable[..., Any] | None = None,
    parameters: dict[str, Any] | None = None,
    bias=None,
    allowed=None,
    normalizer: Callable[..., Any] = softmax,
    kept=None,
) -> Result:
    """`[B, T, N, H]`, `[B, S, K, H]`, `[B, S, K, V]`; `allowed` (bool) and `kept` (factors) broadcast to `[B, N, T, S]`.

    score(query vector, key vector, parameters), score_mod(score, b, n, t, s, parameters); parameters["sink"] is the sink's.
    """
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    (B, T, N, _), (_, S, K, _), V = query.shape, key.shape, value.shape[3]
    cotangent = np.zeros((B, T, N, V)) if cotangent is None else np.asarray(cotangent, np.float64)
    parameters = {name: np.asarray(x, np.float64) for name, x in (parameters or {}).items()}
    allowed = np.broadcast_to(True if allowed is None else allowed, (B, N, T, S))
    kept = np.broadcast_to(1.0 if kept is None else kept, (B, N, T, S))
    added = np.zeros((1, 1, 1, 1)) if bias is None else np.asarray(bias, np.float64)
    result = Result(
        np.zeros((B, T, N, V)), np.zeros((B, N, T, S)), np.full((B, N, T, S), -np.inf), np.full((B, N, T), -np.inf), {}
    )
    grads = {name: np.zeros(np.shape(x)) for name, x in {"query": query, "key": key, "value": value, **parameters}.items()}
    logit_gradient = np.zeros((B, N, T, S))

    def logit(q, k, place, parameters):
        raw = score(q, k, parameters)
        return raw if score_mod is None else score_mod(raw, *place, parameters)

    for b, n, t in np.ndindex(B, N, T):
        head, attended = n // (N // K), [s for s in range(S) if allowed[b, n, t, s]]
        if not attended:
            continue
        for s in attended:
            result.logits[b, n, t, s] = logit(query[b, t, n], key[b, s, head], (b, n, t, s), parameters) + _at(
                added, b, n, t, s
            )
        row, sink = [result.logits[b, n, t, s] for s in attended], parameters["sink"][n] if "sink" in parameters else None
        result.lse[b, n, t] = max(row) + math.log(sum(math.exp(x - max(row)) for x in row))
        result.weights[b, n, t, attended] = normalizer(row, sink)
        weight_gradient = []
        for s in attended:
            factor = result.weights[b, n, t, s] * kept[b, n, t, s]
            result.output[b, t, n] += factor * value[b, s, head]
            grads["value"][b, s, head] += factor * cotangent[b, t, n]
            weight_gradient.append(kept[b, n, t, s] * (cotangent[b, t, n] @ value[b, s, head]))
        logit_gradient[b, n, t, attended] = _slope(lambda x: np.dot(weight_gradient, normalizer(list(x), sink)), row)  # noqa: B023
        if sink is not None:
            grads["sink"][n] += _slope(lambda x: np.dot(weight_gradient, normalizer(row, x[()])), sink)  # noqa: B023
    for b, n, t, s in zip(*np.nonzero(logit_gradient), strict=True):
        q, k, place, gradient = query[b, t, n], key[b, s, n // (N // K)], (b, n, t, s), logit_gradient[b, n, t, s]
        grads["query"][b, t, n] += gradient * _slope(lambda x: logit(x, k, place, parameters), q)  # noqa: B023
        grads["key"][b, s, n // (N // K)] += gradient * _slope(lambda x: logit(q, x, place, parameters), k)  # noqa: B023
        for name in parameters.keys() - {"sink"}:
            moved = lambda x: logit(q, k, place, {**parameters, name: x})  # noqa: B023, E731
            grads[name] += gradient * _slope(moved, parameters[name])
    if bias is not None:
        axes = tuple(i for i, size in enumerate(added.shape) if size == 1)
        grads["bias"] = logit_gradient.sum(axis=axes, keepdims=True)
    return dataclasses.replace(result, gradients=grads)


def _slope(function, x):
    """The derivative of a scalar function at each entry of x."""
    slopes = np.zeros(np.shape(x))
    for index in np.ndindex(np.shape(x)):
        moved = np.array(x, np.complex128)
        moved[index] += 1j * STEP
        slopes[index] = np.imag(function(moved)) / STEP
    return slopes


def _at(array, *place):
    return array[tuple(0 if size == 1 else i for i, size in zip(place, array.shape, strict=True))]


def attention(query, key, value, mask=None, scale=None):
    """`[T, N, H]`, `[S, N, H]`, `[S, N, V]` to outputs `[T, N, V]` and weights `[N, T, S]`, scaled dot product alone."""
    scale = 1 / math.sqrt(np.shape(query)[-1]) if scale is None else float(scale)
    batched = (np.asarray(x)[None] for x in (query, key, value))
    result = attend(*batched, score=lambda q, k, _: scale * (q @ k), allowed=mask)
    return result.output[0], result.weights[0]
