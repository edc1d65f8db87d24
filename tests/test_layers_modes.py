"""Every layer under JAX's strict modes, with numbers of NumPy, and with batches and lengths of nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_layer import FLAGGED, OTHERS, RNGS, B, D, H, N, T, X, initialised

from attn.layers import d2l, keras
from attn.models.classifier import ClassifierConfig

pytestmark = pytest.mark.usefixtures("fast_compilation")
EVERY = FLAGGED | OTHERS


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_strict_modes_change_no_bit(name, dtype):
    """Values and gradients. With tokens it is the parameters that are of the dtype."""
    cls, fields, inputs = EVERY[name]
    layer, variables = initialised(cls, fields, inputs)
    options = {"deterministic": False, "rngs": RNGS} if name in FLAGGED else {}
    if inputs[0].dtype == np.float32:
        inputs = tuple(x.astype(dtype) for x in inputs)
    else:
        variables = jax.tree.map(lambda leaf: leaf.astype(dtype), variables)

    def run():
        def apply(variables):
            output = layer.apply(variables, *inputs, **options)
            return jnp.sum(jnp.sin(output.astype(np.float32))), output

        return jax.value_and_grad(apply, has_aux=True)(variables)

    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        found = jax.jit(run)()
    jax.tree.map(np.testing.assert_array_equal, found, jax.jit(lambda: run())())


@pytest.mark.parametrize("cls", [keras.Attention, keras.MultiHeadAttention])
def test_the_mean_under_strict_modes(cls):
    _, fields, inputs = FLAGGED[f"keras.{cls.__name__}"]
    layer, variables = initialised(cls, fields, inputs)
    over = np.arange(T) < np.array([[4], [2]])
    run = lambda: layer.apply(variables, *inputs, over=over, value_mask=over, method="mean")  # noqa: E731
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        found = run()
    np.testing.assert_array_equal(found, run())


def of_numpy(value):
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, float):
        return np.float32(value)
    return tuple(map(of_numpy, value)) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", EVERY)
def test_numbers_of_numpy_are_those_of_python(name):
    cls, fields, inputs = EVERY[name]
    options = {"deterministic": False, "rngs": RNGS} if name in FLAGGED else {}
    config = fields.get("config")
    other = {field: of_numpy(value) for field, value in fields.items()}
    if config is not None:
        other = {"config": ClassifierConfig(**{field: of_numpy(value) for field, value in vars(config).items()})}
    layer, variables = initialised(cls, fields, inputs)
    if inputs[0].dtype == np.float32:
        inputs = tuple(x.astype(jnp.bfloat16) for x in inputs)
    expected = jax.jit(lambda: layer.apply(variables, *inputs, **options))()
    found = jax.jit(lambda: cls(**other).apply(variables, *inputs, **options))()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    for field, value in fields.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            with pytest.raises(ValueError, match=rf"^{field}=True"):
                cls(**fields | {field: True})


NOTHING = [(0, 5, 7), (2, 0, 7), (2, 5, 0), (0, 0, 0)]


@pytest.mark.parametrize("sizes", NOTHING)
@pytest.mark.parametrize("version", [None, "2.11", "3.15"])
def test_nothing_in_layers_of_keras_gives_zeros(version, sizes):
    b, t, s = sizes
    x, y = np.ones((b, t, D), np.float32), np.ones((b, s, D), np.float32)
    masks = {
        "value_mask": np.ones((b, s), bool),
        "key_mask": np.ones((b, s), bool),
        "query_mask": np.ones((b, t), bool),
        "attention_mask": np.ones((b, 1, t, s), bool),
        "use_causal_mask": True,
    }
    layers = [
        keras.Attention(version=version),
        keras.Attention(score_mode="concat", version=version),
        keras.AdditiveAttention(version=version),
        keras.MultiHeadAttention(N, H, use_bias=False, version=version),
    ]
    if version != "2.11":
        layers.append(keras.GroupQueryAttention(H, 4, 2, use_bias=False, version=version))
    for layer in layers:
        variables = layer.init(RNGS, X, X)
        for chosen in [{}, masks] if version else [{name: mask} for name, mask in masks.items()]:
            run = jax.value_and_grad(lambda x, layer=layer, chosen=chosen: jnp.sum(layer.apply(variables, x, y, **chosen)))  # noqa: B023
            output = layer.apply(variables, x, y, **chosen)
            assert output.shape == (b, t, D)
            assert not np.asarray(output).any()
            assert run(x)[1].shape == x.shape
        scores = layer.apply(variables, x, y, **masks, method="attention_scores")
        assert scores.shape[-2:] == (t, s)
        over = np.ones((b, t), bool)
        mean = layer.apply(variables, x, y, over=over, value_mask=masks["value_mask"], method="mean")
        assert mean.shape == (b, D)
        assert not np.asarray(mean).any()


@pytest.mark.parametrize("sizes", NOTHING)
def test_nothing_in_layers_of_d2l_gives_zeros(sizes):
    b, t, s = sizes
    x, y = np.ones((b, t, D), np.float32), np.ones((b, s, D), np.float32)
    for layer in (d2l.DotProductAttention(0.0), d2l.AdditiveAttention(7, 0.0), d2l.MultiHeadAttention(D, N, 0.0)):
        variables = layer.init(RNGS, X, X, X)
        for lengths in (None, np.zeros(b, np.int32), np.zeros((b, t), np.int64)):
            output = layer.apply(variables, x, y, y, lengths)
            assert output.shape == (b, t, D)
            assert not np.asarray(output).any()
            weights = layer.apply(variables, x, y, y, lengths, method="attention_weights")
            assert weights.shape[1:] == (t, s)


@pytest.mark.parametrize("name", [name for name, (_, _, inputs) in EVERY.items() if len(inputs) == 1])
def test_no_example_and_no_token_in_blocks_and_models(name):
    cls, fields, inputs = EVERY[name]
    layer, variables = initialised(cls, fields, inputs)
    for b, t in ((0, T), (B, 0), (0, 0)):
        output = layer.apply(variables, inputs[0][:b, :t])
        assert output.shape[0] == b
        assert np.isfinite(output).all()
