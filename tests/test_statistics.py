"""Statistics without the weights, against the weights; and partial results against the whole."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import KEY, QUERY, VALUE, B, N, S, T

import attn

pytestmark = pytest.mark.usefixtures("fast_compilation")
OPTIONS = {
    "plain": ({}, {}),
    "mask with an empty row": ({"mask": cases._MASK}, {"allowed": cases._MASK}),
    "causal, a bias, a sink": (
        {"causal": "bottom_right", "bias": cases.random(1, N, 1, S), "sink": cases.random(N)},
        {
            "allowed": cases.distance(offset=S - T) <= 0,
            "bias": cases.random(1, N, 1, S),
            "parameters": {"sink": cases.random(N)},
        },
    ),
    "additive": ({"score": "additive"}, {"score": lambda q, k, p: np.sum(np.tanh(q + k))}),
}


@pytest.mark.parametrize("block", [None, (2, 3), (4, 2)])
@pytest.mark.parametrize("name", OPTIONS)
def test_statistics_are_those_of_the_oracles_weights(name, block):
    options, truth = OPTIONS[name]
    expected = oracle.attend(QUERY, KEY, VALUE, **truth)
    weights = expected.weights
    run = functools.partial(attn.attention_statistics, top_k=3, block=block, dropout_rate=0.5, dropout_rng=cases.RNG, **options)
    found = jax.jit(run)(QUERY, KEY, VALUE)
    np.testing.assert_allclose(found.lse, expected.lse, atol=2e-6)
    np.testing.assert_allclose(found.max_score, expected.logits.max(-1), atol=2e-6)
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    np.testing.assert_allclose(found.entropy, -(weights * logs).sum(-1), atol=3e-6)
    np.testing.assert_allclose(found.received, weights.sum(-2), atol=3e-6)
    order = np.argsort(-weights, axis=-1, kind="stable")[..., :3]
    wanted = np.take_along_axis(weights, order, axis=-1)
    np.testing.assert_allclose(found.top_weights, wanted, atol=2e-6)
    np.testing.assert_array_equal(found.top_indices, np.where(wanted > 0, order, -1))


def test_an_empty_row_has_no_entropy_and_gives_nothing():
    found = attn.attention_statistics(QUERY, KEY, VALUE, mask=cases._MASK)
    assert np.all(found.lse[0, :, 2] == -np.inf) and np.all(found.entropy[0, :, 2] == 0)
    np.testing.assert_allclose(found.received.sum(-1)[0], T - 1, rtol=1e-6)


def test_the_log_sum_exp_is_differentiable():
    gradient = jax.jit(jax.grad(lambda query: attn.attention_statistics(query, KEY, block=2).lse.sum()))(QUERY)
    dense = lambda q: jax.nn.logsumexp(jnp.einsum("btkrh,bskh->bkrts", q.reshape(B, T, 2, 2, 3), KEY) / 3**0.5, axis=-1).sum()  # noqa: E731
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(dense))(QUERY), atol=1e-6)


@pytest.mark.parametrize("normalizer, sink", [("softmax", False), ("softmax", True), ("softmax1", False), ("sigmoid", False)])
def test_merging_partial_results_is_the_whole(normalizer, sink):
    """Three sets of keys, of which one is wholly masked."""
    options = {"normalizer": normalizer} | ({"sink": cases.random(N)} if sink else {})
    parts = [slice(0, 3), slice(3, 4), slice(4, S)]
    lengths = [np.full(B, n) for n in (3, 0, 2)]
    allowed = np.array([True] * 3 + [False] + [True] * 2 + [False])[None, None, None]
    logit = cases.random(N) if sink else np.zeros(N, np.float32) if normalizer == "softmax1" else None

    @jax.jit
    def everything(query, key, value):
        outputs, lses, bare = [], [], []
        for part, length in zip(parts, lengths, strict=True):
            pieces = (query, key[:, part], value[:, part])
            outputs.append(attn.attend(*pieces, key_lengths=length, **options))
            if normalizer != "sigmoid":
                lses.append(attn.attention_statistics(*pieces, key_lengths=length, **options).lse)
            if sink:
                bare.append(attn.attend(*pieces, key_lengths=length))
        merged = [attn.merge_attention(outputs, lses or None, sink=logit)]
        if sink:
            merged.append(attn.merge_attention(bare, lses, sink=logit, sink_in_outputs=False))
        return attn.attend(query, key, value, mask=allowed, **options), merged

    whole, merged = everything(QUERY, KEY, VALUE)
    for found in merged:
        np.testing.assert_allclose(found, whole, atol=2e-6)


def test_asking_for_statistics_changes_no_bit_of_the_output():
    before = attn.attend(QUERY, KEY, VALUE)
    both = jax.jit(lambda *x: (attn.attend(*x), attn.attention_statistics(*x), attn.attention_weights(*x)))(QUERY, KEY, VALUE)
    np.testing.assert_array_equal(both[0], jax.jit(attn.attend)(QUERY, KEY, VALUE))
    np.testing.assert_allclose(both[0], before, atol=1e-6)
