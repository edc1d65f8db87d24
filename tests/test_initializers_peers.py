"""The families of initialisers against what the installed libraries draw: limits and variances over many seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from attn.layers import keras as layers

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15's variables
    pytest.mark.usefixtures("fast_compilation"),
]
D, N, H = 24, 3, 8  # PyTorch and Flax split D into heads
SEEDS = 60


def of_keras(request) -> list[tuple[np.ndarray, np.ndarray]]:
    keras = request.getfixturevalue("keras")
    drawn = []
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        layer = keras.layers.MultiHeadAttention(N, H)
        layer.build((1, 2, D), (1, 2, D))
        weights = [np.asarray(w) for w in layer.get_weights()]
        drawn.append((weights[0], weights[6]))
    return drawn


def of_torch(request) -> list[tuple[np.ndarray, np.ndarray]]:
    torch = request.getfixturevalue("torch")
    drawn = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        module = torch.nn.MultiheadAttention(D, N)
        drawn.append(tuple(w.detach().numpy() for w in (module.in_proj_weight, module.out_proj.weight)))
    return drawn


def of_flax(_) -> list[tuple[np.ndarray, np.ndarray]]:
    module, x = nn.MultiHeadDotProductAttention(num_heads=N), jnp.zeros((2, D))
    init = jax.jit(lambda seed: module.init(jax.random.key(seed), x)["params"])
    drawn = [init(seed) for seed in range(SEEDS)]
    return [(np.asarray(params["query"]["kernel"]), np.asarray(params["out"]["kernel"])) for params in drawn]


@pytest.mark.parametrize("name, draw", [("keras_3.15", of_keras), ("torch", of_torch), ("flax", of_flax)])
def test_a_family_draws_as_its_library_does(request, name, draw):
    """The largest of many is the limit of a uniform, and what a normal is truncated at."""
    theirs = draw(request)
    layer, x = layers.MultiHeadAttention(N, H, initializer=name), jnp.zeros((2, D))
    init = jax.jit(lambda seed: layer.init(jax.random.key(seed), x, x)["params"])
    params = [init(seed) for seed in range(SEEDS)]
    for index, part in enumerate(("query", "attention_output")):
        expected = np.concatenate([weights[index].ravel() for weights in theirs])
        found = np.concatenate([np.asarray(p[part]["kernel"]).ravel() for p in params])
        assert np.abs(found).max() == pytest.approx(np.abs(expected).max(), rel=5e-3)
        assert found.var() == pytest.approx(expected.var(), rel=0.03)
        assert abs(found.mean()) < 0.02 * found.std()
