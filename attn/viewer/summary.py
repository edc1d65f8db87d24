"""One pass over the weights of each layer: what the page stores, and the numbers that it says of them.

Memory is linear in the number of tokens as long as the stored rows are: those of all queries for short texts, the largest
weights of each query for long ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attn.viewer import encoding
from attn.viewer.encoding import Codes, Precision
from attn.viewer.rows import Rows

COARSE = 32  # cells on a side of the still picture


class Plan(NamedTuple):
    """What is stored. Padding at the end of the text is shown as one token, so that there are `shown` ≤ T tokens."""

    length: int  # T
    padding: int
    top_keys: int | None  # of each query; None: all
    queries: tuple[int, ...]  # whose rows are stored in full beside the top keys
    precision: Precision
    residual: bool

    @property
    def real(self) -> int:
        """The number of tokens that are no padding."""
        return self.length - self.padding

    @property
    def shown(self) -> int:
        """The number of tokens of the page."""
        return self.real + (self.padding > 0)


class Layer(NamedTuple):
    """A layer. n is the number of tokens of the page."""

    codes: Codes  # [N, n, n], or [N, n, top keys]
    keys: np.ndarray | None  # uint16 [N, n, top keys]
    full: Codes | None  # [N, queries, n]
    received: np.ndarray  # float64 [N, n]: the mean of the weights over all T queries
    entropy: np.ndarray  # float64 [N, n]: −Σ w ln w over all T keys
    coarse: np.ndarray  # float64 [N, cells, cells]: the largest weight in each cell of a coarse grid


class Rollout(NamedTuple):
    """Attention rollout (Abnar and Zuidema 2020, section 3) from the last layer to the first tokens."""

    pooled: np.ndarray  # float64 [n], from the mean of all T positions of the last layer
    rows: np.ndarray  # float64 [queries, n], of all tokens or of those whose rows are stored in full


def summarize(layers: Sequence[Rows], plan: Plan) -> tuple[list[Layer], Rollout]:
    """Reads the layers from the last one to the first.

    Raises:
      ValueError: as `Rows.blocks`.
    """
    found = []
    shares = _starts(plan)
    for index in reversed(range(len(layers))):
        layer, shares = _layer(layers[index], f"layer {index}", plan, shares)
        found.append(layer)
    shares = merged_keys(shares, plan)
    return found[::-1], Rollout(shares[0], shares[1:])


def merged_keys(weights: np.ndarray, plan: Plan) -> np.ndarray:
    """Weights `[.., T]` with those of the padding added up, `[.., n]`."""
    if not plan.padding:
        return weights
    return np.concatenate([weights[..., : plan.real], weights[..., plan.real :].sum(-1, keepdims=True)], -1)


def _starts(plan: Plan) -> np.ndarray:
    """The positions of the last layer that the rollouts start from, `[1 + queries, T]`: the mean, and each token."""
    chosen = plan.queries if plan.top_keys else range(plan.shown)
    starts = np.zeros((1 + len(chosen), plan.length))
    starts[0] = 1 / plan.length
    for row, token in enumerate(chosen, start=1):
        if token < plan.real:
            starts[row, token] = 1
        else:
            starts[row, plan.real :] = 1 / plan.padding
    return starts


def _layer(rows: Rows, name: str, plan: Plan, shares: np.ndarray) -> tuple[Layer, np.ndarray]:
    """The layer, and `shares` one layer down: shares (½ + ½ A) with a residual connection, else shares A, of the mean A."""
    stored, full, entropy = [], {}, []
    received, below = np.zeros((rows.heads, plan.length)), np.zeros_like(shares)
    padded = np.zeros((rows.heads, plan.shown)), np.zeros(rows.heads)  # sums over the padding: of weights, of entropies
    coarse = np.zeros((rows.heads, *2 * (min(plan.shown, COARSE),)))
    for start, stop, block in rows.blocks(name):
        received += block.sum(1)
        below += shares[:, start:stop] @ block.mean(0)
        bits = -np.sum(block * np.log(np.where(block > 0, block, 1)), -1)
        real = max(0, min(stop, plan.real) - start)
        block = merged_keys(block, plan)
        padded[0][:] += block[:, real:].sum(1)
        padded[1][:] += bits[:, real:].sum(1)
        entropy.append(bits[:, :real])
        stored.append(_stored(block[:, :real], plan))
        full |= {query: block[:, query - start] for query in plan.queries if start <= query < start + real}
        _shrink(coarse, block[:, :real], start, plan.shown)
    if plan.padding:
        mean = padded[0][:, None] / plan.padding
        stored.append(_stored(mean, plan))
        entropy.append(padded[1][:, None] / plan.padding)
        _shrink(coarse, mean, plan.real, plan.shown)
        full |= {query: mean[:, 0] for query in plan.queries if query == plan.real}
    codes = Codes(*(np.concatenate(parts, 1) for parts in zip(*(codes for codes, _ in stored), strict=True)))
    keys = None if plan.top_keys is None else np.concatenate([keys for _, keys in stored], 1)
    rows_in_full = encoding.encode(np.stack([full[query] for query in plan.queries], 1), plan.precision) if full else None
    received = merged_keys(received / plan.length, plan)
    layer = Layer(codes, keys, rows_in_full, received, np.concatenate(entropy, 1), coarse)
    return layer, (shares + below) / 2 if plan.residual else below


def _stored(block: np.ndarray, plan: Plan) -> tuple[Codes, np.ndarray]:
    """A block `[N, queries, n]` as it is stored, with its keys if not all are."""
    if plan.top_keys is None:
        return encoding.encode(block, plan.precision), np.zeros(0, np.uint16)
    keys = encoding.largest(block, plan.top_keys)
    return encoding.encode(np.take_along_axis(block, keys.astype(np.intp), -1), plan.precision), keys


def _shrink(coarse: np.ndarray, block: np.ndarray, start: int, shown: int) -> None:
    """Raises the cells of a grid to the largest weights of a block of queries from `start` on."""
    cells = coarse.shape[-1]
    firsts = -(-np.arange(cells) * shown // cells)  # the first key of each cell
    widest = np.maximum.reduceat(block, firsts, axis=-1) if block.size else block
    for query in range(block.shape[1]):
        cell = (start + query) * cells // shown
        np.maximum(coarse[:, cell], widest[:, query], out=coarse[:, cell])
