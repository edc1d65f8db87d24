"""Which weights dropout keeps: the generator against its authors' vectors, and the mask wherever it is made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, QUERY, B, N, S, T

import attn
from attn import dropout

pytestmark = pytest.mark.usefixtures("fast_compilation")
FULL = 0xFFFFFFFF
KNOWN = [  # Random123 1.14, tests/kat_vectors, threefry2x32 20
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((FULL, FULL), (FULL, FULL), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize("key, counter, expected", KNOWN)
def test_threefry_is_its_authors(key, counter, expected):
    words = dropout.threefry(tuple(map(jnp.uint32, key)), tuple(map(jnp.uint32, counter)))
    assert tuple(map(int, words)) == expected


def test_the_rate_is_the_rate_and_neighbours_are_independent():
    index = (jnp.arange(n, dtype=jnp.int32) for n in (3, 2, 200, 300))
    kept = np.asarray(dropout.keep(jnp.array([5, 9], jnp.uint32), 0.3, *np.ix_(*map(np.asarray, index)))).astype(float)
    error = (0.3 * 0.7 / kept.size) ** 0.5
    assert abs(kept.mean() - 0.7) < 4 * error
    for axis in range(4):
        first, second = np.split(np.take(kept, [0, 1], axis), 2, axis)
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / first.size**0.5


@pytest.mark.parametrize("rng", [jax.random.key(3), jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")])
def test_every_path_drops_the_same_bits(rng):
    """Value = one-hot of the key shows each dropped weight; a microbatch with its offset is a part of the whole."""
    value = np.broadcast_to(np.eye(S, dtype=np.float32)[:, None], (B, S, 2, S))
    options = {"dropout_rate": 0.4, "dropout_rng": rng}

    @jax.jit
    def outputs(query, key, value):
        whole = [
            attn.attend(query, key, value, implementation=name, block=block, **options)
            for name, block in (("dense", None), ("chunked", (2, 3)), ("chunked", (4, 7)), ("chunked_autodiff", 3))
        ]
        second = attn.attend(query[1:], key[1:], value[1:], dropout_offset=1, **options)
        heads = attn.attend(query[:, :, 2:], key[:, :, 1:], value[:, :, 1:], dropout_offset=(0, 2), **options)
        return whole, second, heads, attn.attention_weights(query, key, **options)

    whole, second, heads, weights = outputs(QUERY, KEY, value)
    dropped = [np.moveaxis(output, 1, 2) == 0 for output in whole]
    index = (jnp.arange(n, dtype=jnp.int32) for n in (B, N, T, S))
    recomputed = ~np.asarray(dropout.keep(dropout.words(rng), 0.4, *np.ix_(*map(np.asarray, index))))
    for found in dropped:
        np.testing.assert_array_equal(found, recomputed)
    assert np.all(np.asarray(weights) > 0)
    np.testing.assert_array_equal(np.moveaxis(second, 1, 2) == 0, recomputed[1:])
    np.testing.assert_array_equal(np.moveaxis(heads, 1, 2) == 0, recomputed[:, 2:])
