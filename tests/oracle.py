"""Attention and its gradients in float64 NumPy with explicit loops: an independent truth, written for reading."""

import math

import numpy as np


def attention(query, key, value, mask=None, scale=None):
    """`[T, N, H]`, `[S, N, H]`, `[S, N, V]` to outputs `[T, N, V]` and weights `[N, T, S]`; True in `[N, T, S]` may attend."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    (T, N, H), S, V = query.shape, key.shape[0], value.shape[-1]
    scale = 1 / math.sqrt(H) if scale is None else float(scale)
    mask = np.ones((N, T, S), bool) if mask is None else np.broadcast_to(mask, (N, T, S))
    output, weights = np.zeros((T, N, V)), np.zeros((N, T, S))
    for n in range(N):
        for t in range(T):
            attended = [s for s in range(S) if mask[n, t, s]]
            if not attended:
                continue
            scores = {s: scale * sum(query[t, n, h] * key[s, n, h] for h in range(H)) for s in attended}
            highest = max(scores.values())
            total = sum(math.exp(score - highest) for score in scores.values())
            for s in attended:
                weights[n, t, s] = math.exp(scores[s] - highest) / total
                output[t, n] += weights[n, t, s] * value[s, n]
    return output, weights


def gradients(query, key, value, cotangent, mask=None, scale=None):
    """The gradients of Σ cotangent · output with respect to query, key, value and scale."""
    query, key, value, cotangent = (np.asarray(x, np.float64) for x in (query, key, value, cotangent))
    (T, N, H), S = query.shape, key.shape[0]
    factor = 1 / math.sqrt(H) if scale is None else float(scale)
    output, weights = attention(query, key, value, mask, scale)
    grads = [np.zeros(x.shape) for x in (query, key, value)]
    scale_gradient = 0.0
    for n in range(N):
        for t in range(T):
            mean = float(cotangent[t, n] @ output[t, n])
            for s in range(S):
                if weights[n, t, s] == 0:
                    continue
                grads[2][s, n] += weights[n, t, s] * cotangent[t, n]
                score_gradient = weights[n, t, s] * (float(cotangent[t, n] @ value[s, n]) - mean)
                grads[0][t, n] += score_gradient * factor * key[s, n]
                grads[1][s, n] += score_gradient * factor * query[t, n]
                scale_gradient += score_gradient * float(query[t, n] @ key[s, n])
    return (*grads, scale_gradient)
