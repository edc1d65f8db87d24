"""A bias and a mask with any of their axes of size 1, and heads in groups: every path, values and gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import COTANGENT, KEY, QUERY, TILE, VALUE, B, N, S, T, random

import attn

pytestmark = pytest.mark.usefixtures("fast_compilation")

FULL = (B, N, T, S)
PATTERNS = list(itertools.product((True, False), repeat=4))  # whether each axis has its full size
BIASES = [random(*(n if full else 1 for n, full in zip(FULL, axes, strict=True))) for axes in PATTERNS]
# Beside each bias a mask of another pattern; the first query never has a key where the mask has all queries.
MASKS = [np.random.default_rng(3).random(bias.shape) < 0.7 for bias in BIASES[5:] + BIASES[:5]]
for mask in MASKS:
    if mask.shape[2] == T:
        mask[:, :, 0] = False
# The programs with loops compile slowly. In six patterns each axis is full and is 1 three times, also beside any other axis.
SOME = [
    i
    for i, axes in enumerate(PATTERNS)
    if sum(axes) in (0, 4) or axes in ((1, 0, 1, 0), (0, 1, 0, 1), (0, 0, 1, 1), (1, 1, 0, 0))
]
CHOSEN = {"chunked": SOME, "chunked_autodiff": SOME[1:4], "statistics": SOME}
QUERY_WEIGHTS = random(B, T)


def results(name, bias, mask):
    """The numbers of one path, and the gradients of query, key, value and bias where it has an output."""
    mask = visible(name, mask)
    if name == "weights":
        return attn.attention_weights(QUERY, KEY, bias=bias, mask=mask)
    if name == "statistics":
        return attn.attention_statistics(QUERY, KEY, bias=bias, mask=mask, block=TILE)[:4]

    def output(query, key, value, bias):
        options = {"bias": bias, "mask": mask}
        if name == "pooled":
            return attn.attend_pooled(query, key, value, query_weights=QUERY_WEIGHTS, **options)
        return attn.attend(query, key, value, implementation=name, block=None if name == "dense" else TILE, **options)

    found, pull = jax.vjp(output, QUERY, KEY, VALUE, bias)
    return found, *pull(jnp.asarray(COTANGENT[:, 0] if name == "pooled" else COTANGENT))


def visible(name, mask):
    """The mask, or None where the mean of the outputs would not be computed from a mean of the weights."""
    return None if name == "pooled" and mask.shape[1:3] != (1, 1) else mask


def truth(name, bias, mask):
    mask = visible(name, mask)
    cotangent = QUERY_WEIGHTS[:, :, None, None] * COTANGENT[:, :1] if name == "pooled" else COTANGENT
    exact = oracle.attend(QUERY, KEY, VALUE, cotangent, bias=bias, allowed=mask)
    if name == "weights":
        return exact.weights
    if name == "statistics":
        entropy = -np.sum(exact.weights * np.log(np.where(exact.weights > 0, exact.weights, 1)), -1)
        return exact.lse, entropy, exact.logits.max(-1), exact.weights.sum(-2)
    output = np.einsum("btnv,bt->bnv", exact.output, QUERY_WEIGHTS) if name == "pooled" else exact.output
    return output, *(exact.gradients[x] for x in ("query", "key", "value", "bias"))


@pytest.mark.parametrize("name", ["dense", "chunked", "chunked_autodiff", "pooled", "weights", "statistics"])
def test_every_axis_of_bias_and_mask_may_be_1(name):
    """All patterns in one program."""
    pairs = [(BIASES[i], MASKS[i]) for i in CHOSEN.get(name, range(16))]
    found = jax.jit(lambda: [results(name, *pair) for pair in pairs])()
    for mine, pair in zip(found, pairs, strict=True):
        for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(truth(name, *pair)), strict=True):
            np.testing.assert_allclose(x, y, atol=2e-5, err_msg=str([array.shape for array in pair]))


@pytest.mark.parametrize("name", ["bias", "mask"])
def test_another_rank_is_refused(name):
    """Which axis is missing would be a guess."""
    with pytest.raises(ValueError, match=rf"{name} \(4, 5, 7\) does not broadcast to the scores \(2, 4, 5, 7\): same rank"):
        attn.attend(QUERY, KEY, VALUE, **{name: np.ones((N, T, S), bool if name == "mask" else np.float32)})
