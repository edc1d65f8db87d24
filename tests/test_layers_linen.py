"""linen's tools and lifts around every layer and model: `tabulate`, captures, interceptors, `nn.remat`, `nn.scan`, …."""

import dataclasses

import jax
import numpy as np
import pytest
from every_layer import FLAGGED, OTHERS, RNGS, H, N, T, X, initialised
from flax import linen as nn

from attn.kernels.selection import record_selections
from attn.layers import keras
from attn.layers.keras.base import AttentionLayer
from attn.positions import Relative, rotary

pytestmark = pytest.mark.usefixtures("fast_compilation")
MASK = np.arange(T) < np.array([[5], [3]])
DROPPING = {name: layer for name, layer in FLAGGED.items() if "2.11" not in name}
each = pytest.mark.parametrize("name", [*FLAGGED, *OTHERS])
each_dropping = pytest.mark.parametrize("name", DROPPING)


@each
def test_everything_can_be_captured_and_intercepted_inside_of_jit(name):
    cls, fields, inputs = (FLAGGED | OTHERS)[name]
    layer, variables = initialised(cls, fields, inputs)
    paths = []

    def interceptor(call, args, kwargs, context):
        paths.append(context.module.path)
        return call(*args, **kwargs)

    @jax.jit
    def captured(variables, *inputs):
        with nn.intercept_methods(interceptor):
            return layer.apply(variables, *inputs, capture_intermediates=lambda module, method: True, mutable=["intermediates"])

    output, state = captured(variables, *inputs)
    np.testing.assert_array_equal(state["intermediates"]["__call__"][0], output)
    for path in jax.tree_util.tree_leaves_with_path(variables):
        assert tuple(key.key for key in path[0][1:-1]) in paths, "each module with parameters is passed by"


COPIES = {"in_axes": None, "variable_axes": {"params": None}, "split_rngs": {"params": False, "dropout": True}, "axis_size": 2}


@pytest.mark.parametrize("method", ["__call__", "mean", "attention_scores"])
@pytest.mark.parametrize("name", ["keras.Attention", "keras.MultiHeadAttention", "keras.GroupQueryAttention"])
def test_masks_and_functions_are_honoured_inside_of_lifts(name, method):
    cls, fields, inputs = FLAGGED[name]
    layer, variables = initialised(cls, fields, inputs)
    position = Relative(rotary if name != "keras.Attention" else lambda x: 2 * x)
    options = {"value_mask": MASK, "use_causal_mask": True, "position": position}
    expected = layer.apply(variables, *inputs, **options, method=method)
    plain = layer.apply(variables, *inputs, method=method)
    assert not np.allclose(expected, plain, atol=1e-3)
    for lifted in (nn.remat(cls, methods=[method]), nn.vmap(cls, methods=[method], **COPIES)):
        found = lifted(**fields).apply(variables, *inputs, **options, method=method)
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-5)
    again = cls(**fields, use_causal_mask=True, position=position).apply(variables, *inputs, value_mask=MASK, method=method)
    np.testing.assert_array_equal(again, expected)
    with pytest.raises(ValueError, match=r"^position holds functions: nn.jit may go on with those of an earlier call"):
        nn.jit(cls, methods=[method])(**fields).apply(variables, *inputs, **options, method=method)


@each_dropping
def test_a_flag_is_a_field_or_an_argument(name):
    cls, fields, inputs = FLAGGED[name]
    layer, variables = initialised(cls, fields, inputs)
    with pytest.raises(ValueError, match=r"^deterministic=False in the call of \w+\(…, deterministic=True\): give one"):
        cls(**fields, deterministic=True).apply(variables, *inputs, deterministic=False, rngs=RNGS)
    with pytest.raises(ValueError, match=r"^deterministic=True in the call of \w+\(…, deterministic=False\): give one"):
        nn.remat(cls)(**fields, deterministic=np.False_).apply(variables, *inputs, deterministic=True)
    with pytest.raises(ValueError, match=r"^deterministic=1 must be True or False"):
        layer.apply(variables, *inputs, deterministic=1)
    with pytest.raises(ValueError, match=r"^deterministic='no' must be True or False"):
        cls(**fields, deterministic="no")
    assert cls(**fields, deterministic=None) == layer


def test_the_causal_flag_and_positions_are_fields_or_arguments():
    layer = keras.Attention(use_causal_mask=np.False_, position=Relative())
    with pytest.raises(ValueError, match=r"^use_causal_mask=True in the call of Attention\(…, use_causal_mask=False\)"):
        layer.apply({}, X, X, use_causal_mask=True)
    with pytest.raises(ValueError, match=r"^position=Relative\(.*\) in the call of Attention"):
        layer.apply({}, X, X, position=Relative())
    with pytest.raises(ValueError, match=r"^deterministic=False: the scores of MultiHeadAttention are those before dropout"):
        keras.MultiHeadAttention(N, H).apply({}, X, X, deterministic=np.False_, method="attention_scores")
    layer, variables = initialised(keras.MultiHeadAttention, {"num_heads": N, "key_dim": H, "dropout": 0.5}, (X, X))
    scores = layer.clone(deterministic=False).apply(variables, X, X, method="attention_scores")
    np.testing.assert_array_equal(scores, layer.apply(variables, X, X, method="attention_scores"))


@pytest.mark.parametrize("implementation", ["dense", "chunked", "chunked_autodiff"])
@pytest.mark.parametrize("name", [name for name in FLAGGED if "Norm" not in name and "Encoding" not in name])
def test_the_implementation_of_a_layer_is_what_runs(name, implementation):
    cls, fields, inputs = FLAGGED[name]
    if "config" in fields:
        fields = {"config": dataclasses.replace(fields["config"], implementation=implementation)}
    else:
        fields = fields | {"implementation": implementation}
        if implementation != "dense":
            fields["block"] = (2, 3)
    layer = cls(**fields)
    methods = ["__call__", "mean"] if isinstance(layer, AttentionLayer) else ["__call__"]
    for method in methods:
        with record_selections() as choices:
            jax.eval_shape(lambda *x, method=method: layer.init(RNGS, *x, method=method), *inputs)
        assert choices
        assert {choice.implementation for choice in choices} == {implementation}
        if "block" in fields:
            assert {(choice.block.query, choice.block.key) for choice in choices if choice.block} == {(2, 3)}


def test_a_traced_flag_needs_the_rng_of_dropout():
    for name in ("keras.TransformerBlock", "d2l.MultiHeadAttention", "Classifier transformer"):
        cls, fields, inputs = FLAGGED[name]
        layer, variables = initialised(cls, fields, inputs)
        with pytest.raises(ValueError, match="deterministic is traced: without the rng named 'dropout' it must be static"):
            jax.jit(lambda flag, layer=layer: layer.apply(variables, *inputs, deterministic=flag))(True)  # noqa: B023
