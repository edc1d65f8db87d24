"""Our Adam against the installed Keras'. The layers are in test_parity_keras.py."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import attn

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15's variables


def test_adam(keras):
    rng = np.random.default_rng(0)
    gradients = (rng.normal(size=(20, 4)) * np.array([1e-8, 1e-6, 1e-3, 1])).astype(np.float32)
    variable = keras.Variable(np.ones(4, np.float32))
    theirs = keras.optimizers.Adam(0.01)
    params = jnp.ones(4)
    optimizer = attn.keras_adam(0.01)
    state = optimizer.init(params)
    for gradient in gradients:
        theirs.apply([jnp.asarray(gradient)], [variable])
        updates, state = optimizer.update(jnp.asarray(gradient), state)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, np.asarray(variable.value), atol=1e-6)
    assert 0 < abs(float(params[0]) - 1) < 0.1  # it moved
