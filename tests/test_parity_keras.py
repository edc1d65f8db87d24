"""Our Keras layers against the installed Keras 3.15 on JAX: outputs, scores and gradients, with the same weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import parity
from attn.parity.keras_layers import weight_names
from attn.parity.trees import flatten

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15's variables
    pytest.mark.usefixtures("fast_compilation"),
]
B, T, S, D, E = 2, 5, 7, 6, 9
RNG = np.random.default_rng(0)
QUERY, KEY, VALUE = (RNG.normal(size=shape) for shape in ((B, T, D), (B, S, D), (B, S, E)))
VALUE_MASK = np.array([[True, True, False, True, True, True, False], [True, False, False, False, True, True, True]])
QUERY_MASK = np.array([[True, True, True, False, True], [False, True, True, True, False]])
PAIRS = RNG.random((B, 3, T, S)) < 0.6
PAIRS[..., 0] = True


def randomise(layer):
    rng = np.random.default_rng(1)
    layer.set_weights([(0.5 * rng.normal(size=w.shape)).astype(w.dtype) for w in layer.get_weights()])


def functional(layer):
    """A Keras layer as a function of its weights and inputs, that JAX can differentiate."""

    def call(weights, inputs, **options):
        variables = [jnp.asarray(weight) for weight in weights]
        output, _ = layer.stateless_call(variables, [v.value for v in layer.non_trainable_variables], *inputs, **options)
        return output

    return call


def difference(theirs, ours):
    """The largest, over the largest entry of all: a scalar's gradient is a sum that cancels."""
    expected = [np.asarray(x, np.float64) for x in jax.tree.leaves(theirs)]
    scale = max(np.abs(x).max(initial=0) for x in expected)
    found = [np.asarray(x, np.float64) for x in jax.tree.leaves(ours)]
    assert [x.shape for x in found] == [x.shape for x in expected]
    return max(np.abs(x - y).max() for x, y in zip(found, expected, strict=True)) / scale


def compare(record_property, layer, inputs, theirs_call, ours_call, tolerance, version=None):
    """Values and scores, and gradients of inputs and weights from the same cotangents."""
    module, params = parity.from_keras(layer, version=version)
    weights = layer.get_weights()
    function = functional(layer)

    def theirs(weights, inputs):
        return theirs_call(function, weights, inputs)

    def ours(params, inputs):
        return ours_call(module, params, inputs)

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradients(call, *arguments):
        output, pull = jax.vjp(call, *arguments)
        cotangents = (jnp.asarray(np.random.default_rng(3).normal(size=x.shape), x.dtype) for x in output)
        return output, *pull(tuple(cotangents))

    output, of_weights, of_inputs = with_gradients(theirs, weights, inputs)
    mine, of_params, of_mine = with_gradients(ours, params, inputs)
    assert jax.tree.map(lambda x: x.shape, output) == jax.tree.map(lambda x: x.shape, mine)
    names = weight_names(layer)
    flat = [flatten(of_params["params"])[name] for name in names]
    differences = {
        "values": max(difference(output[0], mine[0]), difference(output[1], mine[1])),
        "gradients": difference((of_inputs, of_weights), (of_mine, flat)),
    }
    for name, largest in differences.items():
        record_property(name, float(largest))
        assert largest <= tolerance


SCORED: dict[str, tuple[str, dict[str, Any]]] = {
    "dot": ("Attention", {}),
    "scaled": ("Attention", {"use_scale": True}),
    "concat": ("Attention", {"score_mode": "concat"}),
    "concat, scaled": ("Attention", {"score_mode": "concat", "use_scale": True}),
    "additive": ("AdditiveAttention", {}),
    "additive, no scale": ("AdditiveAttention", {"use_scale": False}),
}
MASKS: dict[str, dict[str, Any]] = {
    "unmasked": {},
    "value mask": {"value_mask": VALUE_MASK},
    "both masks": {"query_mask": QUERY_MASK, "value_mask": VALUE_MASK},
    "causal": {"use_causal_mask": True},
    "causal, both": {"query_mask": QUERY_MASK, "value_mask": VALUE_MASK, "use_causal_mask": True},
}


@pytest.mark.parametrize("masks, dtype", [*((masks, "float32") for masks in MASKS), ("causal, both", "float64")])
@pytest.mark.parametrize("name", SCORED)
def test_attention(record_property, keras, name, masks, dtype):
    """With scores, in one call: Keras returns both."""
    kind, options = SCORED[name]
    chosen = MASKS[masks]
    # Keras' tanh returns float32, and so is all that follows it, also where everything else is float64. The gradient of the
    # one weight of "concat" and of "scaled" is a float32 sum over every pair, and its order depends on the processor.
    one_weight = "concat" in name or "scaled" in name
    tolerance = 1e-12 if dtype == "float64" and name in ("dot", "scaled") else 2e-6 if one_weight else 1e-6
    with jax.enable_x64(dtype == "float64"):
        layer = getattr(keras.layers, kind)(**options, dtype=dtype)
        inputs = [jnp.asarray(x, dtype) for x in (QUERY, VALUE, KEY)]
        layer.build([x.shape for x in inputs])
        randomise(layer)
        mask = [chosen.get("query_mask"), chosen.get("value_mask")]
        mask = mask if any(x is not None for x in mask) else None
        causal = chosen.get("use_causal_mask", False)

        def theirs(function, weights, inputs):
            return function(weights, [inputs], mask=mask, use_causal_mask=causal, return_attention_scores=True)

        def ours(module, params, inputs):
            scored = {name: value for name, value in chosen.items() if name != "query_mask"}
            return module.apply(params, *inputs, **chosen), module.apply(params, *inputs, **scored, method="attention_scores")

        compare(record_property, layer, inputs, theirs, ours, tolerance)


HEADED: dict[str, tuple[str, dict[str, Any]]] = {
    "multi-head": ("MultiHeadAttention", {"num_heads": 3, "key_dim": 4}),
    "no bias, output": ("MultiHeadAttention", {"num_heads": 3, "key_dim": 4, "use_bias": False, "output_shape": 11}),
    "output of two axes": ("MultiHeadAttention", {"num_heads": 3, "key_dim": 4, "output_shape": (2, 8)}),
    "grouped": ("GroupQueryAttention", {"head_dim": 4, "num_query_heads": 3, "num_key_value_heads": 1}),
}
HEAD_MASKS: dict[str, dict[str, Any]] = {
    "unmasked": {},
    "value mask": {"value_mask": VALUE_MASK},
    "key mask": {"key_mask": VALUE_MASK},
    "causal": {"use_causal_mask": True},
    "pairs": {"attention_mask": PAIRS[0, 0]},
    "pairs by example": {"attention_mask": PAIRS[:, 0]},
    "pairs by head, causal": {"attention_mask": PAIRS, "use_causal_mask": True},
    "all": {"value_mask": VALUE_MASK, "key_mask": VALUE_MASK[:, ::-1] | (np.arange(S) == 0), "attention_mask": PAIRS[:, 0]},
}


@pytest.mark.parametrize(
    "masks, dtype", [*((masks, "float32") for masks in HEAD_MASKS), ("all", "float64"), ("causal", "float64")]
)
@pytest.mark.parametrize("name", HEADED)
def test_multi_head_attention(record_property, keras, name, masks, dtype):
    """The output of Keras' fused path, whose softmax is float32 for float64 too, and output and scores of the other."""
    kind, options = HEADED[name]
    chosen = HEAD_MASKS[masks]
    with jax.enable_x64(dtype == "float64"):
        layer = getattr(keras.layers, kind)(**options, dtype=dtype)
        query, value, key = (jnp.asarray(x, dtype) for x in (QUERY, VALUE, KEY))
        layer.build(query.shape, value.shape, key.shape)
        randomise(layer)

        def theirs(function, weights, inputs):
            output, scores = function(weights, inputs, **chosen, return_attention_scores=True)
            fused = function(weights, inputs, **chosen) if dtype == "float32" else output
            return jnp.stack([fused, output]), scores

        def ours(module, params, inputs):
            output = module.apply(params, *inputs, **chosen)
            return jnp.stack([output, output]), module.apply(params, *inputs, **chosen, method="attention_scores")

        compare(record_property, layer, [query, value, key], theirs, ours, 1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(
    "axes, masked", [(None, False), ((1, 2), True), ((2,), False), ((-2,), True), (1, False), ((2, 1), True)]
)
def test_attention_over_chosen_axes(record_property, keras, axes, masked):
    """Inputs of rank 4: over both axes as one sequence, or over one with the other as a batch."""
    x = jnp.asarray(RNG.normal(size=(B, 3, 4, D)), jnp.float32)
    layer = keras.layers.MultiHeadAttention(2, 5, attention_axes=axes)
    layer.build(x.shape, x.shape)
    randomise(layer)
    sizes = [x.shape[axis] for axis in layer.attention_axes]
    mask = np.random.default_rng(5).random((B, *sizes, *sizes)) < 0.7
    chosen: dict[str, Any] = {"attention_mask": mask | np.eye(mask[0].size, dtype=bool)[0, 0]} if masked else {}

    def theirs(function, weights, inputs):
        return function(weights, [*inputs, *inputs], **chosen), jnp.ones(1)

    def ours(module, params, inputs):
        return module.apply(params, *inputs, *inputs, **chosen), jnp.ones(1)

    compare(record_property, layer, [x], theirs, ours, 2e-6)
