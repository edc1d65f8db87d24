"""Batches of nothing and lengths of nothing: zeros of the right shape and dtype, and gradients, whatever the options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import dropout, mask_mods, positions, score_mods, scores

pytestmark = pytest.mark.usefixtures("fast_compilation")

N, K, H, V = 4, 2, 6, 3
SHAPES = {"B": ((0,), 5, 7), "T": ((2,), 0, 7), "S": ((2,), 5, 0), "BTS": ((0,), 0, 0), "two batch axes": ((3, 0), 5, 7)}
RNG = jax.random.key(0)


def options(batch, queries, keys):
    """By name, what each option is for these sizes. Functions capture arrays of the sizes, which have no entry to read."""
    T, S = queries, keys
    by_query, by_key = np.zeros((*batch, T), int), np.zeros((*batch, S), int)
    pairs = jnp.ones((*batch, N, T, S))
    flat = pairs.reshape(int(np.prod(batch)), N, T, S)
    length = max(T, S)
    return {
        "plain": {},
        "mask": {"mask": pairs > 0},
        "mask of keys": {"mask": jnp.ones((*batch, 1, 1, S), bool)},
        "bias": {"bias": pairs, "scale": jnp.float32(2)},
        "lengths": {"key_lengths": np.zeros(batch, int), "query_lengths": np.zeros(batch, int).tolist()},
        "segments": {"query_segments": by_query, "key_segments": by_key},
        "positions": {"causal": True, "query_positions": by_query, "key_positions": by_key, "window": (3, None)},
        "causal": {"causal": "bottom_right", "window": (2, 0)},
        "causal by lengths": {"causal": "bottom_right", "key_lengths": np.zeros(batch, int)},
        "dropout": {"dropout_rate": 0.5, "dropout_rng": RNG},
        "sink": {"sink": jnp.ones(N)},
        "softmax1": {"normalizer": "softmax1"},
        "sigmoid": {"normalizer": "sigmoid"},
        "sparsemax": {"normalizer": "sparsemax"},
        "entmax15": {"normalizer": "entmax15"},
        "cosine": {"score": scores.cosine(jnp.ones(N))},
        "additive": {"score": scores.additive(jnp.ones(H))},
        "a function": {"score": lambda q, k: jnp.sum(flat[0]) + q @ k},
        "alibi": {"score_mod": score_mods.alibi(N)},
        "a table": {"score_mod": lambda s, b, h, q, k: s + flat[b, h, q, k]},
        "relative bias": {"score_mod": score_mods.relative_bias(jnp.ones((N, max(0, 2 * length - 1))))},
        "mask_mod": {"mask_mod": lambda b, h, q, k: flat[b, h, q, k] > 0},
        "documents": {"mask_mod": mask_mods.document(np.zeros((flat.shape[0], length), int))},
        "prefix": {"mask_mod": mask_mods.prefix(np.zeros(flat.shape[0], int))},
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("axis", SHAPES)
@pytest.mark.parametrize("name", options((2,), 5, 7))
def test_nothing_gives_zeros(name, axis, dtype):
    batch, T, S = SHAPES[axis]
    chosen = options(batch, T, S)[name]
    query, key, value = (jnp.ones((*batch, *shape), dtype) for shape in ((T, N, H), (S, K, H), (S, K, V)))

    def zeros(array, *shape, dtype=dtype):
        assert (array.shape, array.dtype) == ((*batch, *shape), dtype)
        assert not np.asarray(array, np.float32).any()

    output, pull = jax.vjp(lambda *x: attn.attend(*x, **chosen), query, key, value)
    zeros(output, T, N, V)
    for gradient, like in zip(pull(output), (query, key, value), strict=True):
        zeros(gradient, *like.shape[len(batch) :])
    zeros(attn.attention_weights(query, key, **chosen), N, T, S, dtype=jnp.float32)
    zeros(attn.attend_pooled(query, key, value, query_weights=jnp.ones(T), **chosen), N, V)
    if chosen.get("normalizer", "softmax") in ("softmax", "softmax1"):
        statistics = attn.attention_statistics(query, key, **chosen)
        zeros(statistics.received, N, S, dtype=jnp.float32)
        assert np.all(np.asarray(statistics.lse) == -np.inf)
        assert statistics.lse.shape == (*batch, N, T)


@pytest.mark.parametrize("axis", SHAPES)
@pytest.mark.parametrize("kernel", ["dense", "chunked", "chunked_autodiff"])
def test_no_implementation_is_called(kernel, axis):
    batch, T, S = SHAPES[axis]
    query, key, value = (jnp.ones((*batch, *shape)) for shape in ((T, N, H), (S, K, H), (S, K, V)))
    assert (
        attn.attend(query, key, value, implementation=kernel, bias=jnp.ones((N, 1, 1))[(None,) * len(batch)]).size == 0 or not S
    )
    if kernel == "chunked":
        assert attn.attention_statistics(query, key, block=(2, 3)).top_weights.shape == (*batch, N, T, 0)


def test_a_captured_table_gets_zeros():
    def total(table):
        return jnp.sum(attn.attend(x, x, x, score_mod=lambda s, b, h, q, k: s + table[h], causal=True))

    x = jnp.ones((0, 5, N, H))
    np.testing.assert_array_equal(jax.jit(jax.grad(total))(jnp.ones(N)), np.zeros(N))


def test_channels_of_nothing():
    output = attn.attend(jnp.ones((2, 5, N, H)), jnp.ones((2, 7, K, H)), jnp.ones((2, 7, K, 0)), causal="top_left")
    assert output.shape == (2, 5, N, 0)


def test_the_other_functions():
    x = jnp.ones((0, 5, N, H))
    assert positions.rotary(x, np.zeros((0, 5), int)).shape == x.shape
    assert positions.rotary(x[:, :0]).shape == (0, 0, N, H)
    assert positions.sinusoidal(0, 4).shape == (0, 4)
    assert attn.merge_attention([x, x], [jnp.ones((0, N, 5))] * 2, jnp.ones(N)).shape == x.shape
    assert dropout.bernoulli(RNG, 0.5, (0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": jnp.ones((2, 1, 5, 7), bool)}, "does not broadcast"),
        ({"score_mod": 3}, "score_mod=3 must be a function"),
        ({"causal": True}, "causal=True with T=5 and S=7"),
        ({"key_lengths": [1, 2]}, "key_lengths"),
        ({"implementation": "dens"}, "did you mean 'dense'"),
        ({"window": (-1, 0), "causal": "top_left"}, "window"),
    ],
)
def test_bad_arguments_are_refused_all_the_same(options, message):
    with pytest.raises(ValueError, match=message):
        attn.attend(jnp.ones((0, 5, N, H)), jnp.ones((0, 7, K, H)), jnp.ones((0, 7, K, V)), **options)
