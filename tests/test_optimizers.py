"""Keras' Adam: the first-step table, and a trajectory against its recurrence in float64."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import attn
from experiments import settings
from experiments.errors import UsageError
from experiments.training import build


@pytest.mark.parametrize(
    "gradient, keras, other", [(1e-8, 0.0032, 0.0909), (1e-7, 0.0307, 0.5), (1e-6, 0.2403, 0.9091), (1e-5, 0.7597, 0.9901)]
)
def test_first_step_is_keras_and_not_optax(gradient, keras, other):
    for optimizer, expected in ((attn.keras_adam(1.0), keras), (optax.adam(1.0, eps=1e-7), other)):
        params = jnp.zeros(())
        update, _ = optimizer.update(jnp.float32(gradient), optimizer.init(params), params)
        assert -float(update) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("name", ["keras_adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_optimizers_of_a_config(name: str, schedule: str):
    """Eight steps in float64 NumPy: warm-up over three steps, then constant or a cosine to 0 at step 8."""
    config = settings.load_page("transformer", "imdb")
    config.optimizer, config.schedule, config.learning_rate, config.warmup_steps = name, schedule, 0.05, 3
    config.weight_decay, config.momentum = 0.1 * (name == "adamw"), 0.8 * (name == "sgd")
    optimizer = build.build_optimizer(config, 8)(build.scalars_of(config))
    params = jnp.array([1.0, -2.0, 0.5])
    state = optimizer.init(params)
    w, m, v = np.array([1.0, -2.0, 0.5]), np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(np.random.default_rng(1).normal(size=(8, 3)), start=1):
        done = t - 1
        rate = 0.05 * min(1, done / 3)
        if schedule == "cosine" and done > 3:
            rate = 0.05 * (1 + np.cos(np.pi * (done - 3) / 5)) / 2
        if name == "sgd":
            m = gradient + 0.8 * m
            w = w - rate * m
        else:
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            corrected = m / (1 - 0.9**t), np.sqrt(v / (1 - 0.999**t))
            if name == "adamw":
                w = w - rate * (corrected[0] / (corrected[1] + 1e-8) + 0.1 * w)
            else:
                w = w - rate * corrected[0] / (corrected[1] + 1e-7 / np.sqrt(1 - 0.999**t))
        updates, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, w, rtol=1e-5)


def test_a_warm_up_that_is_longer_than_a_cosine():
    config = settings.load_page("transformer", "imdb")
    config.schedule, config.warmup_steps = "cosine", 8
    with pytest.raises(UsageError, match=r"^config.warmup_steps=8 must be less than the 8 steps of the run$"):
        build.build_optimizer(config, 8)


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
