"""What `attn.attend` is tested on: each case says the same thing twice, in its arguments and in the oracle's."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle

from attn import dropout, score_mods, scores

B, T, S, N, K, H, V = 2, 5, 7, 4, 2, 3, 6
TILE = (2, 3)  # queries and keys: neither divides its length
_RANDOM = np.random.default_rng(7)
QUERY, KEY, VALUE = (_RANDOM.normal(size=shape).astype(np.float32) for shape in ((B, T, N, H), (B, S, K, H), (B, S, K, V)))
COTANGENT = _RANDOM.normal(size=(B, T, N, V)).astype(np.float32)
_t, _s = np.arange(T)[:, None], np.arange(S)
POSITIONS = np.array([[0, 3, 4, 7, 2], [5, 1, 1, 0, 9]]), np.array([0, 1, 2, 4, 5, 8, 3])
SEGMENTS = np.array([[0, 0, 1, 1, 2], [1, 1, 1, 0, 3]]), np.array([0, 0, 1, 1, 1, 2, 0])
RNG = jax.random.key(11)
_KEYS, _QUERIES = np.array([6, 3])[:, None, None, None], np.array([2, 4])[:, None, None, None]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Case:
    """`options(parameters)` are keyword arguments of `attn.attend`, `truth` those of `oracle.attend`."""

    options: Callable[[dict[str, Any]], dict[str, Any]]
    truth: dict[str, Any] = dataclasses.field(default_factory=dict)
    parameters: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    dense_alone: bool = False


def masked(allowed, **options: Any) -> Case:
    return Case(lambda p: options, {"allowed": allowed})


def distance(positions: tuple[np.ndarray, np.ndarray] | None = None, offset: int = 0):
    """Key position less query position, `[.., T, S]`."""
    query, key = positions or (np.arange(T) + offset, np.arange(S))
    return (key[..., None, :] - query[..., :, None])[:, None] if positions else key - query[:, None]


def kept(rate: float) -> np.ndarray:
    index = (np.arange(n, dtype=np.int32) for n in (B, N, T, S))
    b, n, t, s = np.ix_(*index)
    return np.asarray(dropout.keep(dropout.words(RNG), rate, *map(jnp.asarray, (b, n, t, s)))) / (1 - rate)


def unit(x):
    return x / np.sqrt(np.sum(x * x))


CASES = {
    "plain": Case(lambda p: {}),
    "dot": Case(lambda p: {"score": "dot"}, {"score": lambda q, k, p: q @ k}),
    "scale": Case(lambda p: {"scale": p["scale"]}, {"score": lambda q, k, p: p["scale"] * (q @ k)}, {"scale": np.float32(0.7)}),
    "cosine": Case(
        lambda p: {"score": scores.cosine(p["temperature"])},
        {"score": lambda q, k, p: unit(q) @ unit(k) / p["temperature"]},
        {"temperature": np.float32(0.3)},
    ),
    "bilinear": Case(
        lambda p: {"score": scores.bilinear(p["matrix"])},
        {"score": lambda q, k, p: q @ p["matrix"] @ k},
        {"matrix": random(H, H)},
    ),
    "additive": Case(
        lambda p: {"score": scores.additive(p["vector"])},
        {"score": lambda q, k, p: p["vector"] @ np.tanh(q + k)},
        {"vector": random(H)},
    ),
    "additive masked, scaled": Case(
        lambda p: {"score": "additive", "scale": p["scale"], "causal": "bottom_right"},
        {"score": lambda q, k, p: p["scale"] * np.sum(np.tanh(q + k)), "allowed": distance(offset=S - T) <= 0},
        {"scale": np.float32(1.3)},
    ),
    "concat": Case(
        lambda p: {"score": scores.concat(p["weight"], p["inner"])},
        {"score": lambda q, k, p: p["weight"] * np.sum(np.tanh(p["inner"] * (q + k)))},
        {"weight": np.float32(0.8), "inner": np.float32(1.2)},
    ),
    "neg_squared_distance": Case(lambda p: {"score": "neg_squared_distance"}, {"score": lambda q, k, p: -np.sum((q - k) ** 2)}),
    "a function": Case(
        lambda p: {"score": lambda q, k: jnp.sum(p["power"] * jnp.sin(q) * k**2)},
        {"score": lambda q, k, p: np.sum(p["power"] * np.sin(q) * k**2)},
        {"power": random(H)},
    ),
    "bias": Case(lambda p: {"bias": p["bias"]}, {}, {"bias": random(1, N, 1, S)}),
    "lengths": masked(
        (_s < np.array([0, 4])[:, None, None, None]) & (_t < np.array([5, 2])[:, None, None, None]),
        key_lengths=np.array([0, 4]),
        query_lengths=np.array([5, 2]),
    ),
    "segments": masked(SEGMENTS[0][:, None, :, None] == SEGMENTS[1], query_segments=SEGMENTS[0], key_segments=SEGMENTS[1]),
    "causal, top left": masked(distance() <= 0, causal="top_left"),
    "causal, bottom right": masked(distance(offset=S - T) <= 0, causal="bottom_right"),
    "causal, by lengths": masked(
        (distance() <= (_KEYS - _QUERIES)) & (_s < _KEYS) & (_t < _QUERIES),
        causal="bottom_right",
        key_lengths=np.array([6, 3]),
        query_lengths=np.array([2, 4]),
    ),
    "causal, by key lengths": masked(
        (distance() <= _KEYS - T) & (_s < _KEYS), causal="bottom_right", key_lengths=np.array([6, 3])
    ),
    "alibi by query lengths": Case(
        lambda p: {
            "score_mod": score_mods.alibi(N),
            "causal": "bottom_right",
            "window": (3, 0),
            "query_lengths": np.array([2, 4]),
        },
        {
            "score_mod": lambda score, b, h, q, k, p: score - 4.0 ** -(h + 1) * abs(q + S - (2, 4)[b] - k),
            "allowed": (distance() <= S - _QUERIES) & (distance() >= S - _QUERIES - 3) & (_t < _QUERIES),
        },
    ),
    "window": masked((distance() >= -1) & (distance() <= 0), causal="top_left", window=(1, 2)),
    "positions": masked(
        (distance(POSITIONS) <= 0) & (distance(POSITIONS) >= -4),
        query_positions=POSITIONS[0],
        key_positions=POSITIONS[1],
        causal=True,
        window=(4, None),
    ),
    "mask_mod": masked(
        (_t + _s + np.arange(N)[:, None, None] + np.arange(B)[:, None, None, None]) % 3 > 0,
        mask_mod=lambda b, h, q, k: (q + k + h + b) % 3 > 0,
    ),
    "score_mod": Case(
        lambda p: {"score_mod": lambda score, b, h, q, k: jnp.tanh(score) * (b + 1) + p["table"][h, k - q + T - 1]},
        {"score_mod": lambda score, b, h, q, k, p: np.tanh(score) * (b + 1) + p["table"][h, k - q + T - 1]},
        {"table": random(N, T + S - 1)},
    ),
    "soft cap, bias, mask": Case(
        lambda p: {"score_mod": score_mods.soft_cap(1.5), "bias": p["bias"], "causal": "top_left"},
        {"score_mod": lambda score, b, h, q, k, p: 1.5 * np.tanh(score / 1.5), "allowed": distance() <= 0},
        {"bias": random(B, 1, 1, S)},
    ),
    "softmax1": Case(lambda p: {"normalizer": "softmax1"}, {"normalizer": lambda row, sink: oracle.softmax(row, 0.0)}),
    "sink": Case(lambda p: {"sink": p["sink"], "causal": "top_left"}, {"allowed": distance() <= 0}, {"sink": random(N)}),
    "sigmoid": Case(
        lambda p: {"normalizer": "sigmoid", "causal": "top_left", "bias": p["bias"]},
        {"normalizer": oracle.sigmoid, "allowed": distance() <= 0},
        {"bias": random(1, 1, 1, 1)},
    ),
    "sparsemax": Case(lambda p: {"normalizer": "sparsemax"}, {"normalizer": oracle.sparsemax}, dense_alone=True),
    "entmax15": Case(
        lambda p: {"normalizer": "entmax15", "causal": "top_left"},
        {"normalizer": oracle.entmax15, "allowed": distance() <= 0},
        dense_alone=True,
    ),
    "dropout": Case(lambda p: {"dropout_rate": 0.4, "dropout_rng": RNG}, {"kept": kept(0.4)}),
}
_MASK = np.random.default_rng(5).random((B, 1, T, S)) < 0.5
_MASK[0, 0, 2] = False
CASES["mask"] = masked(_MASK, mask=_MASK)
