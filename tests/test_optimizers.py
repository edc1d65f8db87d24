"""Keras' Adam: the first-step table, and a trajectory against its recurrence in float64."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import attn


@pytest.mark.parametrize(
    "gradient, keras, other", [(1e-8, 0.0032, 0.0909), (1e-7, 0.0307, 0.5), (1e-6, 0.2403, 0.9091), (1e-5, 0.7597, 0.9901)]
)
def test_first_step_is_keras_and_not_optax(gradient, keras, other):
    for optimizer, expected in ((attn.keras_adam(1.0), keras), (optax.adam(1.0, eps=1e-7), other)):
        params = jnp.zeros(())
        update, _ = optimizer.update(jnp.float32(gradient), optimizer.init(params), params)
        assert -float(update) == pytest.approx(expected, abs=6e-5)


def test_trajectory():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(30, 4)) * np.array([1e-7, 1e-5, 1e-3, 1])
    weights, m, v = np.ones(4), np.zeros(4), np.zeros(4)
    optimizer = attn.keras_adam(0.01, 0.8, 0.95, 1e-6)
    params = {"w": jnp.ones(4)}
    state = optimizer.init(params)
    for t, gradient in enumerate(gradients, start=1):
        m = m + (gradient - m) * (1 - 0.8)
        v = v + (gradient**2 - v) * (1 - 0.95)
        weights = weights - 0.01 * np.sqrt(1 - 0.95**t) / (1 - 0.8**t) * m / (np.sqrt(v) + 1e-6)
        updates, state = optimizer.update({"w": jnp.asarray(gradient, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], weights, rtol=1e-5)
