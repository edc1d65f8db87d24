"""`flax.linen.MultiHeadDotProductAttention` and our layer with its weights: values, weights, gradients, the same bits back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from attn import parity
from attn.layers.keras import MultiHeadAttention
from attn.parity.trees import flatten

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, S, N, H, D, DK, DV, OUT = 2, 5, 7, 3, 4, 12, 11, 9, 8
MASK = np.random.default_rng(5).random((B, N, T, S)) < 0.6
MASK[..., 0] = True


def flax(**fields):
    return nn.MultiHeadDotProductAttention(num_heads=N, **fields)


def inputs(dtype="float32", batch=(B,)):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(*batch, *shape)).astype(dtype) for shape in ((T, D), (S, DK), (S, DV))]


def init(module, *inputs):
    """Every parameter random, the biases too."""
    shapes = jax.eval_shape(functools.partial(module.init, deterministic=True), jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype) / 3, shapes)


CASES = {
    "self": ({}, None),
    "cross": ({"qkv_features": N * H, "out_features": OUT}, None),
    "cross no bias": ({"out_features": OUT, "use_bias": False}, MASK),
    "batch of two axes": ({"dropout_rate": 0.5}, MASK[:, None]),
}


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("case", CASES)
def test_they_agree(record_property, case, dtype, tolerance):
    fields, mask = CASES[case]
    with jax.enable_x64(dtype == "float64"):
        given = inputs(dtype, (B, 2) if "two axes" in case else (B,))
        given = given[:1] * 3 if case == "self" else given
        module = flax(param_dtype=dtype, **fields)
        params = init(module, *given)
        layer, ours = parity.from_flax(module, params)

        def of_flax(params, query, key, value):
            output, sown = module.apply(
                params, query, key, value, mask=mask, sow_weights=True, deterministic=True, mutable=["intermediates"]
            )
            return output, sown["intermediates"]["attention_weights"][0]

        def of_ours(params, query, key, value):
            options = {} if mask is None else {"attention_mask": jnp.asarray(mask)}
            scores = layer.apply(params, query, value, key, method="attention_scores", **options)
            return layer.apply(params, query, value, key, **options), scores

        def everything(of, params):
            (output, weights), pull = jax.vjp(of, params, *given)
            cotangent = np.random.default_rng(2).normal(size=output.shape).astype(dtype)
            gradient, *slopes = pull((cotangent, jnp.zeros_like(weights)))
            return gradient, [output, weights, *slopes]

        (theirs, arrays), (found, found_arrays) = jax.jit(lambda p, q: (everything(of_flax, p), everything(of_ours, q)))(
            params, ours
        )
        theirs, found = (flatten(x["params"]) for x in (parity.from_flax(module, theirs)[1], found))
    differences = []
    for a, b in zip(found_arrays, arrays, strict=True):
        assert a.dtype == dtype
        differences.append(close(a, b, tolerance * np.abs(b).max()) / np.abs(b).max())
    record_property("values", float(max(differences[:2])))
    assert found.keys() == theirs.keys()
    for name, gradient in theirs.items():  # softmax does not see the key's bias: its gradient is rounding, in both
        largest = np.abs(theirs["query/bias" if name == "key/bias" else name]).max()
        differences.append(close(found[name], gradient, tolerance * largest) / largest)
    record_property("gradients", float(max(differences[2:])))


def close(found, expected, distance):
    assert found.shape == expected.shape
    difference = np.abs(np.asarray(found) - np.asarray(expected)).max()
    assert difference <= distance
    return difference


def test_a_query_with_no_key_is_uniform_there_and_the_bias_here():
    query, key, value = inputs()
    module = flax()
    params = init(module, query, key, value)
    mask = np.ones((B, N, T, S), bool)
    mask[:, :, 2] = False
    theirs, sown = module.apply(params, query, key, value, mask=mask, sow_weights=True, mutable=["intermediates"])
    np.testing.assert_allclose(sown["intermediates"]["attention_weights"][0][:, :, 2], 1 / S, rtol=1e-6)
    layer, ours = parity.from_flax(module, params)
    output = layer.apply(ours, query, value, key, attention_mask=mask)
    np.testing.assert_array_equal(output[:, 2], np.broadcast_to(params["params"]["out"]["bias"], (B, D)))
    assert np.abs(output[:, 2] - theirs[:, 2]).max() > 0.1
    rest = [0, 1, 3, 4]
    close(output[:, rest], theirs[:, rest], 1e-6 * np.abs(theirs[:, rest]).max())


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_the_same_bits_come_back(use_bias, dtype):
    with jax.enable_x64(True):
        module = flax(qkv_features=N * H, out_features=OUT, use_bias=use_bias, param_dtype=dtype)
        params = init(module, *inputs())
    params["params"]["query"]["kernel"][0, 0, :3] = [-0.0, np.inf, np.nan]
    layer, ours = parity.from_flax(module, params)
    assert (layer.num_heads, layer.key_dim, layer.output_shape, layer.use_bias) == (N, H, OUT, use_bias)
    back = parity.to_flax(ours["params"], module)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for found, expected in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert found.dtype == expected.dtype == dtype
        assert found.tobytes() == expected.tobytes()
        assert not np.shares_memory(found, expected)


def test_our_own_parameters_go_to_flax():
    query, key, value = inputs()
    layer = MultiHeadAttention(N, H)
    params = layer.init(jax.random.key(0), query, value, key)
    output = flax().apply(parity.to_flax(params, flax()), query, key, value)
    close(layer.apply(params, query, value, key), output, 1e-6 * np.abs(output).max())


@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", [nn.MultiHeadAttention, nn.SelfAttention])
def test_bound_modules_boxed_and_inner_parameters(kind):
    query = inputs()[0]
    module = kind(num_heads=N, kernel_init=nn.with_partitioning(nn.initializers.ones, ("embed", "heads", None)))
    params = module.init(jax.random.key(0), query)
    assert isinstance(params["params"]["query"]["kernel"], nn.Partitioned)
    _, whole = parity.from_flax(module.bind(params), params)
    _, inner = parity.from_flax(module, params["params"])
    jax.tree.map(np.testing.assert_array_equal, whole, inner)
    np.testing.assert_array_equal(whole["params"]["query"]["kernel"], np.ones((D, N, H)))


class Changed(nn.MultiHeadDotProductAttention):
    pass


REFUSED = [
    (flax(normalize_qk=True), "normalize_qk=True is not supported: only False can be converted"),
    (flax(decode=True), "decode=True is not supported: only False can be converted"),
    (flax(attention_fn=jax.nn.dot_product_attention), "attention_fn=.* is not supported"),
    (flax(dtype=jnp.bfloat16), "dtype=bfloat16 is not supported: .* is float32, and the two must be equal"),
    (flax(qkv_features=10), "qkv_features=10 is not divisible by num_heads=3"),
    (flax(qkv_features=6), r"(key/bias has shape \(3, 4\)|out/kernel has shape \(3, 4, 12\)): in the module it has \(3, 2"),
    (flax(out_features=OUT), r"out/bias has shape \(12,\): in the module it has \(8,\)"),
    (flax(use_bias=False), "(query|key|out)/bias is not a parameter of the module"),
    (Changed(num_heads=N), "module is a Changed, not a flax.linen.MultiHeadDotProductAttention"),
]


@pytest.mark.parametrize("module, message", REFUSED, ids=[message[:20] for _, message in REFUSED])
def test_what_ours_has_not_is_refused(module, message):
    params = init(flax(), *inputs())
    with pytest.raises(ValueError, match=message):
        parity.from_flax(module, params)
    ours = parity.from_flax(flax(), params)[1]
    with pytest.raises(ValueError, match=message):
        parity.to_flax(ours, module)


@pytest.mark.parametrize(
    "params, message",
    [
        ([1.0], "params is a list, not a dict of arrays"),
        ({"query": {}}, "query is an empty dict"),
        ({"query": {"kernel": [1.0]}}, "query/kernel is a list, not an array"),
        ({"query": {"kernel": np.ones((D, N, H), int)}}, "query/kernel has dtype int64: weights must be floating point"),
        ({"query": {"kernel": np.ones((D, N, H))}}, "out/kernel is missing: it is a parameter of the module"),
        ({}, "out/kernel is missing: it is a parameter of the module"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        parity.from_flax(flax(), params)


def test_dtype_may_say_what_the_parameters_are():
    module = flax(dtype=jnp.float32, dropout_rate=0.25)
    layer, _ = parity.from_flax(module, init(module, *inputs()))
    assert layer.dropout == 0.25
