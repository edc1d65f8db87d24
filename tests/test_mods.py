"""The ready score and mask functions against the papers' own numbers, and against the arguments that say the same."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, QUERY, VALUE, B, N, S, T

import attn
from attn import mask_mods, score_mods

pytestmark = pytest.mark.usefixtures("fast_compilation")


def weights(**options):
    return np.asarray(jax.jit(functools.partial(attn.attention_weights, **options))(QUERY, KEY))


def test_alibi_slopes_are_the_papers():
    """Section 3: a half to 1/256 for 8 heads; for 12 every other one of the sequence for 16 is added."""
    np.testing.assert_allclose(score_mods.alibi_slopes(8), [2.0**-n for n in range(1, 9)])
    np.testing.assert_allclose(score_mods.alibi_slopes(16), [2.0 ** (-n / 2) for n in range(1, 17)])
    extra = [2.0 ** (-n / 2) for n in (1, 3, 5, 7)]
    np.testing.assert_allclose(score_mods.alibi_slopes(12), [2.0**-n for n in range(1, 9)] + extra)
    bias = -score_mods.alibi_slopes(N)[:, None, None] * np.abs(np.arange(S) - np.arange(T)[:, None])
    found = weights(score_mod=score_mods.alibi(N))
    np.testing.assert_allclose(found, weights(bias=bias[None].astype(np.float32)), atol=1e-6)


def test_t5_buckets_are_those_of_the_authors_code():
    """32 buckets to 128: worked by hand from the definition. A key after the query is in the upper half."""
    distances = np.array([0, -1, -7, -8, -11, -12, -127, -128, -500, 1, 7, 8, 16, 127, 1000])
    both = [0, 1, 7, 8, 8, 9, 15, 15, 15, 17, 23, 24, 26, 31, 31]
    np.testing.assert_array_equal(score_mods.t5_bucket(jnp.asarray(distances), 32), both)
    before = [0, 1, 7, 8, 11, 12, 31, 31, 31, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(score_mods.t5_bucket(jnp.asarray(distances), 32, bidirectional=False), before)


def test_t5_bias_is_looked_up_by_bucket_and_head():
    table = cases.random(8, N)
    distance = jnp.arange(S) - jnp.arange(T)[:, None]
    bias = jnp.moveaxis(jnp.asarray(table)[score_mods.t5_bucket(distance, 8)], -1, 0)[None]
    np.testing.assert_allclose(weights(score_mod=score_mods.t5_relative_bias(table)), weights(bias=bias), atol=1e-6)


@pytest.mark.parametrize(
    "mod, option",
    [
        (mask_mods.causal, {"causal": "top_left"}),
        (mask_mods.all_of(mask_mods.causal, mask_mods.sliding_window(2, None)), {"causal": "top_left", "window": (2, None)}),
        (mask_mods.document(np.array([[0] * 3 + [1] * 4, [2] * 7])), {
            "query_segments": np.array([[0] * 3 + [1] * 2, [2] * 5]),
            "key_segments": np.array([[0] * 3 + [1] * 4, [2] * 7]),
        }),
        (mask_mods.prefix(np.array([2, 5])), {"key_lengths": np.array([2, 5])}),
        (mask_mods.any_of(mask_mods.prefix(2), mask_mods.causal), {
            "mask": np.broadcast_to((cases.distance() <= 0) | (np.arange(S) < 2), (B, N, T, S))
        }),
    ],
)  # fmt: skip
def test_a_mask_mod_is_the_argument_that_says_the_same(mod, option):

    @jax.jit
    def each(*inputs):
        return [attn.attend(*inputs, mask_mod=mod, implementation=name) for name in ("dense", "chunked")]

    expected = jax.jit(functools.partial(attn.attend, **option))(QUERY, KEY, VALUE)
    for found in each(QUERY, KEY, VALUE):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_soft_cap_chained_with_a_relative_bias():
    table = cases.random(N, 2 * S - 1)
    mod = score_mods.chain(score_mods.soft_cap(0.5), score_mods.relative_bias(jnp.asarray(table)))
    by_hand = lambda score, b, h, q, k: 0.5 * jnp.tanh(score / 0.5) + jnp.asarray(table)[h, k - q + S - 1]  # noqa: E731
    np.testing.assert_allclose(weights(score_mod=mod), weights(score_mod=by_hand), atol=1e-6)
