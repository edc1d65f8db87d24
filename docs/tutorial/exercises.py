"""The exercises of the tutorial, one a page. Write a function, then run `python docs/tutorial/check.py`.

Arguments are lists of numbers, or lists of lists. Return a number, a list or an array. NumPy may be used, `attn` need not be.
"""


def score(query, key):
    """Page 1. The product of two lists of the same length: q₁ k₁ + q₂ k₂ + …"""
    raise NotImplementedError


def softmax(scores):
    """Page 2. The weights of a list of scores. Scores of 1000 must not overflow."""
    raise NotImplementedError


def masked_softmax(scores, mask):
    """Page 3. The weights of the scores whose mask is True, 0 for the others; all 0 if none is True."""
    raise NotImplementedError


def gaussian_score(query, key, width):
    """Page 4. −|q − k|² / (2 width²), where |q − k|² is the sum of the squares of all differences."""
    raise NotImplementedError


def self_attention(x, w_query, w_key, w_value):
    """Page 5. One head: softmax(q · k) v, where q, k and v are x `[T, D]` times a matrix. Returns `[T, V]`."""
    raise NotImplementedError


def split_heads(x, num_heads):
    """Page 6. `[T, N · H]` to `[T, N, H]`: the first H numbers of each vector belong to the first head."""
    raise NotImplementedError


def sinusoidal(length, dim):
    """Page 7. `[length, dim]`: numbers 2i and 2i + 1 of place t are sine and cosine of t / 10000^(2i / dim)."""
    raise NotImplementedError


def layer_norm(x):
    """Page 8. The vector less its mean, divided by √(its variance + 1e-6)."""
    raise NotImplementedError


def cross_entropy(logits, label):
    """Page 9. −ln of the softmax of `logits` at the index `label`. Logits of 1000 must not overflow."""
    raise NotImplementedError


def entropy(weights):
    """Page 10. −Σ w ln w of a list of weights; a weight of 0 adds 0."""
    raise NotImplementedError
