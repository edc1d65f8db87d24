"""Our layers and our Adam against the installed Keras, with the same weights."""

import importlib.util
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import attn
from attn.layers import keras as ours

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs the extra peers: make test EXTRAS=peers"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15's variables
]
T, S, D, OUT = 5, 7, 6, 9


@pytest.fixture(scope="module")
def keras() -> Any:
    os.environ["KERAS_BACKEND"] = "jax"
    return importlib.import_module("keras")


def inputs() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(2, T, D)), jnp.float32), jnp.asarray(rng.normal(size=(2, S, D)), jnp.float32)


def test_attention(keras):
    query, value = inputs()
    theirs = keras.layers.Attention(use_scale=True)
    unscaled = np.asarray(theirs([query, value]))
    theirs.set_weights([np.float32(0.3)])
    expected = np.asarray(theirs([query, value]))
    assert not np.allclose(unscaled, expected)
    output = ours.Attention(use_scale=True).apply({"params": {"scale": jnp.float32(0.3)}}, query, value)
    np.testing.assert_allclose(output, expected, atol=2e-6)


def test_multi_head_attention(keras):
    query, value = inputs()
    theirs = keras.layers.MultiHeadAttention(
        num_heads=2, key_dim=3, output_shape=OUT
    )  # 3.15 fails with another value_dim on JAX
    theirs(query, value)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=w.shape).astype(np.float32) for w in theirs.get_weights()]
    theirs.set_weights(weights)
    names = [(layer, part) for layer in ("query", "key", "value", "attention_output") for part in ("kernel", "bias")]
    params: dict[str, dict[str, np.ndarray]] = {}
    for (layer, part), weight in zip(names, weights, strict=True):  # Keras' order, and our shapes are Keras'
        params.setdefault(layer, {})[part] = weight
    layer = ours.MultiHeadAttention(num_heads=2, key_dim=3, output_dim=OUT)
    assert jax.tree.map(jnp.shape, layer.init(jax.random.key(0), query, value)["params"]) == jax.tree.map(jnp.shape, params)
    allowed = np.array([True, False, True, True, True, False, True])
    attention_mask = np.broadcast_to(allowed, (2, T, S))
    expected = theirs(query, value, attention_mask=attention_mask)
    output = layer.apply({"params": params}, query, value, mask=jnp.asarray(allowed)[None, None, None])
    np.testing.assert_allclose(output, np.asarray(expected), atol=2e-5)


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
