"""linen's lifts and tools around each layer: nn.remat, nn.jit, nn.vmap, nn.scan, tabulate, intermediates and interceptors."""

import dataclasses
import operator
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from attn.layers import d2l, d2l_transformer, keras
from attn.models.classifier import Classifier, ClassifierConfig

B, T, D = 2, 5, 6
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 9, (B, T))
RNGS = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
CONFIG = ClassifierConfig(
    body="transformer", vocabulary_size=9, max_length=T, num_classes=3, embed_dim=D, num_layers=1, num_heads=2, key_dim=4,
    output_dims=(D,), feedforward_dim=7, positions="none", dropout_rate=0.5, mask_padding=False,
)  # fmt: skip
LAYERS = {
    "keras.Attention": (keras.Attention, {"use_scale": True, "dropout": 0.5}, (X, X)),
    "keras.AdditiveAttention": (keras.AdditiveAttention, {"dropout": 0.5}, (X, X)),
    "keras.MultiHeadAttention": (keras.MultiHeadAttention, {"num_heads": 2, "key_dim": 4, "dropout": 0.5}, (X, X)),
    "keras.GroupQueryAttention": (
        keras.GroupQueryAttention,
        {"head_dim": 4, "num_query_heads": 4, "num_key_value_heads": 2, "dropout": 0.5},
        (X, X),
    ),
    "keras.TransformerBlock": (
        keras.TransformerBlock,
        {"num_heads": 2, "key_dim": 4, "feedforward_dim": 7, "dropout_rate": 0.5},
        (X,),
    ),
    "d2l.DotProductAttention": (d2l.DotProductAttention, {"dropout": 0.5}, (X, X, X)),
    "d2l.AdditiveAttention": (d2l.AdditiveAttention, {"num_hiddens": 8, "dropout": 0.5}, (X, X, X)),
    "d2l.MultiHeadAttention": (d2l.MultiHeadAttention, {"num_hiddens": 6, "num_heads": 2, "dropout": 0.5}, (X, X, X)),
    "d2l.TransformerEncoder": (
        d2l_transformer.TransformerEncoder,
        {"vocab_size": 9, "num_hiddens": 6, "ffn_num_hiddens": 7, "num_heads": 2, "num_blks": 1, "dropout": 0.5},
        (TOKENS,),
    ),
    "Classifier": (Classifier, {"config": CONFIG}, (TOKENS,)),
}

pytestmark = pytest.mark.usefixtures("fast_compilation")
each_layer = pytest.mark.parametrize("name", LAYERS)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@each_layer
def test_a_flag_in_a_lifted_call_is_that_of_the_layer(name):
    """In the call, or as a field; and dropout is on under vmap, where linen drops keyword arguments."""
    layer, fields, inputs = LAYERS[name]
    variables = layer(**fields).init(RNGS, *inputs)
    expected, off = jax.jit(
        lambda *x: [layer(**fields).apply(variables, *x, deterministic=d, rngs=RNGS) for d in (False, True)]
    )(*inputs)
    assert np.abs(expected - off).max() > 1e-3

    @jax.jit
    def lifted(*x):
        found = {}
        for lift in (nn.remat, nn.jit):
            name = lift.__name__
            found[name + ", call"] = lift(layer)(**fields).apply(variables, *x, deterministic=False, rngs=RNGS)
            found[name + ", field"] = lift(layer)(**fields, deterministic=False).apply(variables, *x, rngs=RNGS)
            found[name + ", off"] = lift(layer)(**fields).apply(variables, *x, rngs=RNGS)
        many = nn.vmap(
            layer, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, in_axes=None, axis_size=2
        )
        stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), variables)
        found["vmap"] = many(**fields).apply(stacked, *x, deterministic=False, rngs=RNGS)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = lifted(*inputs)
    members = found.pop("vmap")
    assert np.abs(members[0] - members[1]).max() > 1e-3  # they drop different weights
    assert len(found) == 6
    for kind in ("call", "field"):
        close(found[f"checkpoint, {kind}"], expected)
        assert np.abs(found[f"jit, {kind}"] - off).max() > 1e-3  # nn.jit derives another random key, for Flax' layers too
    close(found["jit, call"], found["jit, field"])
    close(found["checkpoint, off"], off)
    close(found["jit, off"], off)


def test_a_flag_that_is_traced_decides_in_the_running_program():
    """As where a function that is lifted passes it on."""
    block = keras.MultiHeadAttention(2, 4, dropout=0.5)
    variables = block.init(RNGS, X, X)

    @jax.jit
    def run(deterministic, causal):
        return block.apply(variables, X, X, deterministic=deterministic, use_causal_mask=causal, rngs=RNGS)

    for deterministic in (False, True):
        for causal in (False, True):
            expected = block.apply(variables, X, X, deterministic=deterministic, use_causal_mask=causal, rngs=RNGS)
            close(run(deterministic, causal), expected)
    with pytest.raises(ValueError, match="deterministic is traced: without the rng named 'dropout'"):
        jax.jit(lambda flag: block.apply(variables, X, X, deterministic=flag))(True)


def test_twelve_blocks_in_a_scan_over_remat_are_twelve_blocks_in_a_row():
    fields = LAYERS["keras.TransformerBlock"][1] | {"dropout_rate": 0.0}

    class Step(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.remat(keras.TransformerBlock)(**fields, name="block")(x), None

    stack = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=12)()
    variables = stack.init(RNGS, X, None)

    def scanned(params, x):
        return jnp.sum(jnp.sin(stack.apply({"params": params}, x, None)[0]))

    block = jax.jit(lambda params, x: keras.TransformerBlock(**fields).apply({"params": params}, x))

    def in_a_row(params, x):
        for index in range(12):
            x = block(jax.tree.map(operator.itemgetter(index), params["block"]), x)
        return jnp.sum(jnp.sin(x))

    found, expected = (jax.value_and_grad(f, (0, 1))(variables["params"], X) for f in (jax.jit(scanned), in_a_row))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, expected)
    assert np.abs(jax.tree.leaves(expected[1][0])[0]).max() > 1e-3


def test_what_cannot_be_honoured_is_refused():
    layer = keras.MultiHeadAttention(2, 4, deterministic=True)
    variables = layer.init(RNGS, X, X)
    with pytest.raises(
        ValueError, match=r"deterministic=False in the call of MultiHeadAttention\(…, deterministic=True\): give one"
    ):
        layer.apply(variables, X, X, deterministic=False)
    many = nn.vmap(keras.MultiHeadAttention, variable_axes={"params": None}, split_rngs={"params": False}, in_axes=0)(2, 4)
    with pytest.raises(TypeError, match=r"nn\.vmap drops the keyword argument 'training'"):
        many.apply(variables, X[None], X[None], training=True)
    with pytest.raises(ValueError, match="implementation='fast' is not one of"):
        keras.MultiHeadAttention(2, 4, implementation="fast")  # type: ignore[arg-type]


@each_layer
def test_linens_tools_work(name):
    """The table's count is that of the parameters; every method's output is captured; an interceptor reads each path."""
    layer, fields, inputs = LAYERS[name]
    module = layer(**fields)
    variables = module.init(RNGS, *inputs)
    table = module.tabulate(RNGS, *inputs, console_kwargs={"width": 300, "force_terminal": False})
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert not count or f"Total Parameters: {count:,}" in table
    _, state = module.apply(variables, *inputs, capture_intermediates=lambda module, name: True, mutable=["intermediates"])
    assert jax.tree.leaves(state)
    paths = []

    def read_path(call, arguments, named, context):
        paths.append(context.module.path)
        return call(*arguments, **named)

    with nn.intercept_methods(read_path):
        module.apply(variables, *inputs)
    assert () in paths


@each_layer
def test_every_layer_takes_an_implementation(name):
    layer, fields, inputs = LAYERS[name]
    field = {"config": CONFIG} if name == "Classifier" else fields
    module = layer(**field)
    variables = module.init(RNGS, *inputs)
    expected = jax.jit(module.apply)(variables, *inputs)
    for implementation in ("dense", "chunked_autodiff"):
        if name == "Classifier":
            other = layer(dataclasses.replace(CONFIG, implementation=implementation))
        else:
            other = layer(**fields, implementation=implementation)
        close(jax.jit(other.apply)(variables, *inputs), expected)
    if name != "Classifier":
        close(jax.jit(layer(**fields, implementation="chunked", block=(2, 3)).apply)(variables, *inputs), expected)
