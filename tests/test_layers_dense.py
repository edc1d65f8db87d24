"""Our Dense and Dropout are linen's: the same parameters, numbers and bits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from attn.dropout import bernoulli
from attn.layers import dense

pytestmark = pytest.mark.usefixtures("fast_compilation")
X = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)


class Ours(nn.Module):
    rate: float = 0.3

    @nn.compact
    def __call__(self, x, deterministic=False):
        x = dense.Dense(4, nn.initializers.lecun_normal(), nn.initializers.normal())(x)
        return dense.Dropout(self.rate, deterministic)(x)


class Theirs(nn.Module):
    rate: float = 0.3

    @nn.compact
    def __call__(self, x, deterministic=False):
        x = nn.Dense(4, kernel_init=nn.initializers.lecun_normal(), bias_init=nn.initializers.normal())(x)
        return nn.Dropout(self.rate, deterministic=deterministic)(x)


@pytest.mark.parametrize("deterministic, rate", [(True, 0.3), (False, 0.0), (False, 0.3)])
@pytest.mark.parametrize("shape", [(2, 5, 3), (5, 3), (3,)])
def test_parameters_outputs_and_gradients(deterministic, rate, shape):
    x = X.reshape(-1, *shape)[0] if len(shape) < 3 else X
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    ours, theirs = Ours(rate), Theirs(rate)

    def loss(params, x, model):
        output = model.apply(params, x, deterministic, rngs={"dropout": jax.random.key(2)})
        return jnp.sum(jnp.sin(output)), output

    @jax.jit
    def both(x):
        params = theirs.init(rngs, x)
        return (ours.init(rngs, x), params), [
            jax.grad(loss, (0, 1), has_aux=True)(params, x, model) for model in (ours, theirs)
        ]

    params, ((ours_slope, output), (slope, expected)) = both(x)
    jax.tree.map(np.testing.assert_array_equal, *params)
    np.testing.assert_allclose(output, expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(output) == 0, np.asarray(expected) == 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours_slope, slope)


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (0, 2)])
def test_bernoulli_is_that_of_jax_bit_for_bit(shape):
    """For several probabilities and kinds of keys, and for a batch of keys."""
    single, batch = (
        (jax.random.key(3), jax.random.PRNGKey(4), jax.random.key(5, impl="rbg")),
        jax.random.split(jax.random.key(6), 3),
    )

    @functools.partial(jax.jit, static_argnums=0)
    def draw(function):
        drawn = {}
        for probability in (0.9, 0.5, 1 - 0.3, 1e-7, 1.0, 0.999999):
            of_one = functools.partial(function, probability=probability, shape=shape)
            drawn[probability] = [*map(of_one, single), jax.vmap(of_one)(batch)]
        return drawn

    expected = draw(lambda rng, probability, shape: jax.random.bernoulli(rng, probability, shape))
    jax.tree.map(np.testing.assert_array_equal, draw(bernoulli), expected)
    assert {np.asarray(x).shape for x in jax.tree.leaves(expected)} == {shape, (3, *shape)}


def test_bernoulli_of_keys_that_are_not_partitionable_is_that_of_jax():
    rng = jax.random.key(6)
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(bernoulli(rng, 0.5, (4,)), jax.random.bernoulli(rng, 0.5, (4,)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_rate_that_is_an_array(dtype):
    """One program for several rates: each drops what the rate as a number drops, and scales the rest alike, to rounding."""
    x, rng = jax.random.normal(jax.random.key(1), (7, 30), dtype), jax.random.key(2)

    def output(rate, x):
        return dense.Dropout(rate, deterministic=False).apply({}, x, rngs={"dropout": rng})

    program, dropped = jax.jit(output), set()
    for rate in (0.0, 0.1, 0.3, 0.9):
        found, expected = program(jnp.float32(rate), x), jax.jit(functools.partial(output, rate))(x)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found == 0, expected == 0)
        np.testing.assert_allclose(found.astype(jnp.float32), expected.astype(jnp.float32), rtol=4 * jnp.finfo(dtype).eps)
        dropped.add(int((found == 0).sum()))
    assert len(dropped) == 4
    assert program._cache_size() == 1
