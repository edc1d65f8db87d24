"""The encoder-decoder transformer in float64 NumPy, one vector at a time: an independent truth for `TransformerSeq2Seq`.

A source is given without its padding. Parameters may be complex: as in `oracle`, derivatives are complex steps.
"""

import math
from typing import Any

import numpy as np
import oracle

PADDING, START, UNKNOWN, END = range(4)
Vectors = list[np.ndarray]


def dense(weights: Any, x: np.ndarray) -> np.ndarray:
    return x @ weights["kernel"] + weights["bias"]


def layer_norm(weights: Any, x: np.ndarray) -> np.ndarray:
    centred = x - sum(x) / len(x)
    return centred / np.sqrt(sum(centred**2) / len(x) + 1e-6) * weights["scale"] + weights["bias"]


def feedforward(weights: Any, x: np.ndarray) -> np.ndarray:
    hidden = dense(weights["hidden"], x)
    return dense(weights["output"], np.where(hidden.real > 0, hidden, 0))


def turned(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary positions: the entries i and i + H / 2 are a point of the plane, which turns by position · 10000^(−2i / H)."""
    half, found = len(x) // 2, 0 * x
    for i in range(half):
        angle = position * 10_000 ** (-2 * i / len(x))
        found[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        found[i + half] = x[i] * math.sin(angle) + x[i + half] * math.cos(angle)
    return found


def attention(weights: Any, asking: Vectors, asked: Vectors, causal: bool, rotary: bool) -> tuple[Vectors, dict]:
    """The outputs of some vectors that attend to others, and the weights by head, query and key."""
    kernel = weights["output"]["kernel"]  # [N, H, D]
    outputs, shares = [weights["output"]["bias"] for _ in asking], {}
    for n in range(len(kernel)):
        queries, keys, values = (
            [x @ weights[name]["kernel"][:, n] + weights[name]["bias"][n] for x in xs]
            for name, xs in (("query", asking), ("key", asked), ("value", asked))
        )
        if rotary:
            queries, keys = ([turned(x, position) for position, x in enumerate(xs)] for xs in (queries, keys))
        for t, query in enumerate(queries):
            seen = range(t + 1) if causal else range(len(keys))
            row = [query @ keys[s] / math.sqrt(len(query)) for s in seen]
            for s, share in zip(seen, oracle.softmax(row) if row else [], strict=True):
                shares[n, t, s] = share
                outputs[t] = outputs[t] + share * values[s] @ kernel[n]
    return outputs, shares


def embedded(params: Any, config: Any, tokens: list[int]) -> Vectors:
    found = [math.sqrt(config.embed_dim) * params["embedding"]["embedding"][token] for token in tokens]
    for position, x in enumerate(found if config.positions == "sinusoidal" else []):
        for i in range(0, config.embed_dim, 2):
            angle = position / 10_000 ** (i / config.embed_dim)
            x[i] += math.sin(angle)
            x[i + 1] += math.cos(angle)
    return found


def plus(xs: Vectors, ys: Vectors) -> Vectors:
    return [x + y for x, y in zip(xs, ys, strict=True)]


def normed(weights: Any, xs: Vectors) -> Vectors:
    return [layer_norm(weights, x) for x in xs]


def encoded(params: Any, config: Any, source: list[int]) -> Vectors:
    xs, rotary = embedded(params, config, source), config.positions == "rotary"
    for index in range(config.num_layers):
        weights = params[f"encoder_{index}"]
        ys = normed(weights["norms_0"], xs)
        xs = plus(xs, attention(weights["attention"], ys, ys, False, rotary)[0])
        xs = plus(xs, [feedforward(weights["feedforward"], y) for y in normed(weights["norms_1"], xs)])
    return normed(params["encoder_norm"], xs)


def logits(params: Any, config: Any, source: list[int], inputs: list[int]) -> tuple[Vectors, list[dict]]:
    """What follows each of the decoder's inputs, `[U, C]`, and each layer's weights over the source."""
    memory, xs, shares = encoded(params, config, source), embedded(params, config, inputs), []
    for index in range(config.num_layers):
        weights = params[f"decoder_{index}"]
        ys = normed(weights["norms_0"], xs)
        xs = plus(xs, attention(weights["attention"], ys, ys, True, config.positions == "rotary")[0])
        found, over_source = attention(weights["cross"], normed(weights["norms_1"], xs), memory, False, False)
        xs = plus(xs, found)
        shares.append(over_source)
        xs = plus(xs, [feedforward(weights["feedforward"], y) for y in normed(weights["norms_2"], xs)])
    return [dense(params["logits"], x) for x in normed(params["decoder_norm"], xs)], shares


def loss(params: Any, config: Any, source: list[int], target: list[int]) -> Any:
    """The cross-entropy of a target in nats, summed over its tokens."""
    rows, _ = logits(params, config, source, [START, *target[:-1]])
    return -sum(np.log(oracle.softmax(list(row))[token]) for row, token in zip(rows, target, strict=True))


def greedy(params: Any, config: Any, source: list[int], length: int) -> tuple[list[int], float, float]:
    """The most probable token in each step, all before it computed anew; their log-probability; and by how much the
    closest of the choices was made."""
    tokens, total, margin = [], 0.0, math.inf
    while len(tokens) < length and END not in tokens:
        found = np.log(oracle.softmax(list(logits(params, config, source, [START, *tokens])[0][-1])))
        possible = [token for token in range(len(found)) if token not in (PADDING, START)]
        first, second = sorted(possible, key=lambda token: -found[token])[:2]
        tokens.append(first)
        total, margin = total + found[first], min(margin, found[first] - found[second])
    return tokens, total, margin
