"""Solutions of the exercises of the tutorial. Other ways are as good: `python docs/tutorial/check.py` compares results only."""

import numpy as np


def score(query, key):
    return sum(q * k for q, k in zip(query, key, strict=True))


def softmax(scores):
    powers = np.exp(np.asarray(scores) - np.max(scores))  # only differences count, and now the largest power is 1
    return powers / powers.sum()


def masked_softmax(scores, mask):
    if not np.any(mask):
        return np.zeros(len(scores))
    return softmax(np.where(mask, scores, -np.inf))


def gaussian_score(query, key, width):
    return -np.sum((np.asarray(query) - np.asarray(key)) ** 2) / (2 * width**2)


def self_attention(x, w_query, w_key, w_value):
    query, key, value = (np.asarray(x) @ np.asarray(w) for w in (w_query, w_key, w_value))
    return np.stack([softmax(scores) @ value for scores in query @ key.T])


def split_heads(x, num_heads):
    x = np.asarray(x)
    return x.reshape(len(x), num_heads, -1)


def sinusoidal(length, dim):
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, dim, 2) / dim)
    table = np.empty((length, dim))
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table


def layer_norm(x):
    centred = x - np.mean(x)
    return centred / np.sqrt(np.mean(centred**2) + 1e-6)


def cross_entropy(logits, label):
    shifted = np.asarray(logits) - np.max(logits)
    return np.log(np.exp(shifted).sum()) - shifted[label]


def entropy(weights):
    weights = np.asarray(weights)
    chosen = weights[weights > 0]
    return -np.sum(chosen * np.log(chosen))
