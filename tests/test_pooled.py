"""Attention averaged over its queries, against the oracle: its outputs averaged, and the gradients of that."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import CASES, KEY, QUERY, VALUE, B, Case, N, S, T, V, masked, random

import attn
from attn.layers import keras

pytestmark = pytest.mark.usefixtures("fast_compilation")
TOLERANCES = {"float32": (2e-6, 1e-5), "float64": (1e-12, 1e-12)}  # of values, of gradients
WEIGHTS = np.random.default_rng(3).normal(size=(B, T)).astype(np.float32)
COTANGENT = np.random.default_rng(4).normal(size=(B, N, V)).astype(np.float32)
_SHOWN = np.random.default_rng(6).random((B, 1, 1, S)) < 0.6
ALL_KEYS = {
    "sink, all keys": Case(lambda p: {"sink": p["sink"]}, {}, {"sink": random(N)}),
    "sigmoid, all keys": Case(
        lambda p: {"normalizer": "sigmoid", "bias": p["bias"]}, {"normalizer": oracle.sigmoid}, {"bias": random(B, 1, T, 1)}
    ),
    "keys masked for all": masked(_SHOWN, mask=_SHOWN),
    "keys masked for all, sink": Case(lambda p: {"sink": p["sink"], "mask": _SHOWN}, {"allowed": _SHOWN}, {"sink": random(N)}),
    "keys masked for all, sigmoid": Case(
        lambda p: {"normalizer": "sigmoid", "mask": _SHOWN}, {"normalizer": oracle.sigmoid, "allowed": _SHOWN}
    ),
    "key lengths": masked(np.arange(S) < np.array([0, 4])[:, None, None, None], key_lengths=np.array([0, 4])),
}
MASKED = {name for name, case in CASES.items() if "allowed" in case.truth}
RUNS = CASES | ALL_KEYS


def truth(case: Case) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Where the outputs are weighed, so is the gradient that each of them gets."""
    bias = case.parameters.get("bias")
    parameters = {k: v for k, v in case.parameters.items() if k != "bias"}
    cotangent = WEIGHTS[:, :, None, None].astype(np.float64) * COTANGENT[:, None]
    found = oracle.attend(QUERY, KEY, VALUE, cotangent, parameters=parameters, bias=bias, **case.truth)
    of_weights = np.einsum("btnv,bnv->bt", found.output, COTANGENT.astype(np.float64))
    return np.einsum("bt,btnv->bnv", WEIGHTS.astype(np.float64), found.output), {**found.gradients, "weights": of_weights}


def runs() -> Iterator[Any]:
    """Each case in float64, and every third in float32 too; the rest of the product is marked `exhaustive`."""
    for index, name in enumerate(RUNS):
        yield pytest.param(name, "float64")
        yield pytest.param(name, "float32", marks=[] if index % 3 == 0 else pytest.mark.exhaustive)


@pytest.mark.parametrize("name, dtype", list(runs()))
def test_values_and_gradients_are_the_oracles(name, dtype):
    case = RUNS[name]
    with jax.enable_x64(dtype == "float64"):
        arrays = {"query": QUERY, "key": KEY, "value": VALUE, "weights": WEIGHTS, **case.parameters}
        arrays = {name: jnp.asarray(array, dtype) for name, array in arrays.items()}

        def loss(arrays):
            options = case.options({name: arrays[name] for name in case.parameters})
            qkv = (arrays[name] for name in ("query", "key", "value"))
            output = attn.attend_pooled(*qkv, query_weights=arrays["weights"], **options)
            return jnp.sum(output * COTANGENT.astype(dtype)), output

        gradients, output = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    expected, of = truth(case)
    values, slopes = TOLERANCES[dtype]
    assert output.dtype == dtype
    np.testing.assert_allclose(output, expected, rtol=0, atol=values * np.abs(expected).max())
    largest = max(np.abs(gradient).max() for gradient in of.values())
    assert gradients.keys() == of.keys()
    for name, wanted in of.items():
        np.testing.assert_allclose(gradients[name], wanted, rtol=0, atol=slopes * largest, err_msg=name)


@pytest.mark.parametrize("name", RUNS)
def test_which_path_runs_is_told(name):
    options = RUNS[name].options({name: jnp.asarray(array) for name, array in RUNS[name].parameters.items()})
    told = attn.explain(QUERY, KEY, VALUE, pooled=True, **options)
    if name in MASKED or "max" in name.replace("softmax", "").replace("entmax15", "max"):
        assert told.implementation != "pooled"
        assert told.others["pooled"].startswith("does not honour")
    else:
        assert told.implementation == "pooled"
        assert str(told).count("\n") == 4


def test_without_weights_it_is_the_mean_of_the_outputs_on_every_path():
    expected = np.mean(attn.attend(QUERY, KEY, VALUE), axis=1)
    for options in ({}, {"implementation": "dense"}, {"implementation": "chunked", "block": 2}):
        mean = jax.jit(functools.partial(attn.attend_pooled, **options))
        np.testing.assert_allclose(mean(QUERY, KEY, VALUE), expected, atol=1e-6)
    each = jax.jit(jax.vmap(attn.attend_pooled))(QUERY, KEY, VALUE)
    np.testing.assert_allclose(each, expected, atol=1e-6)


def test_more_than_a_tile_is_averaged_over_outputs():
    query = jnp.asarray(np.random.default_rng(0).normal(size=(3, 300, 2, 4)), jnp.float32)
    assert attn.explain(query, query, query, pooled=True).others["pooled"] == "needs everything in one tile"
    expected = jnp.mean(attn.attend(query, query, query, implementation="dense"), axis=1)
    np.testing.assert_allclose(attn.attend_pooled(query, query, query), expected, atol=1e-6)


PATHS = pytest.mark.parametrize("options", [{}, {"mask": np.ones((1, 1, 5, 7), bool)}], ids=["pooled", "composed"])
UNREAD = np.array([1, 1, 0, 1, 1], np.float32)


@PATHS
@pytest.mark.parametrize(
    "score", ["scaled_dot", lambda q, k: q @ k / jnp.sqrt((q @ q) * (k @ k))], ids=["dot", "undefined at 0"]
)
def test_a_query_of_weight_0_may_be_nan(options, score):
    """It is in no value and in no gradient."""
    query = np.concatenate([QUERY[:, :2], np.full_like(QUERY[:, :1], np.nan), QUERY[:, 3:]], axis=1)

    @functools.partial(jax.jit, static_argnums=0)
    def run(function, query):
        output, pull = jax.vjp(functools.partial(function, score=score), query, KEY, VALUE)
        return output, *pull(jnp.asarray(COTANGENT))

    found = run(functools.partial(attn.attend_pooled, query_weights=UNREAD, **options), query)
    outputs = lambda *inputs, score: jnp.einsum("t,btnv->bnv", UNREAD, attn.attend(*inputs, score=score))  # noqa: E731
    for actual, expected in zip(found, run(outputs, QUERY), strict=True):
        np.testing.assert_allclose(actual, expected, atol=2e-6)


@PATHS
def test_the_gradient_of_a_weight_of_0_is_the_output_of_its_query(options):
    loss = lambda weights: jnp.vdot(attn.attend_pooled(QUERY, KEY, VALUE, query_weights=weights, **options), COTANGENT)  # noqa: E731
    expected = np.einsum("btnv,bnv->t", attn.attend(QUERY, KEY, VALUE), COTANGENT)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(UNREAD), expected, rtol=1e-5)


def test_without_a_key_a_nan_comes_back_to_nothing_that_examples_share():
    """Nor does it come from a query to the bias of a key that is masked."""
    mask = np.ones((B, 1, 1, S), bool)
    mask[0, ..., 4:] = mask[1] = False

    def run(query, bias, sink, vector):
        return attn.attend_pooled(query, KEY, VALUE, mask=mask, bias=bias, sink=sink, score=attn.scores.additive(vector))

    shared = random(1, N, 1, S), random(N), random(3)
    pull = jax.jit(lambda query, cotangent: jax.vjp(run, query, *shared)[1](cotangent))
    bad, clean, query = COTANGENT.copy(), COTANGENT.copy(), QUERY.copy()
    bad[1], clean[1], query[0, 0] = np.nan, 0, np.nan
    for actual, expected in zip(pull(QUERY, bad), pull(QUERY, clean), strict=True):
        np.testing.assert_array_equal(actual, expected)
    of_bias = pull(query, COTANGENT)[1]
    np.testing.assert_array_equal(np.isnan(of_bias[0, :, 0]).any(axis=0), mask[0, 0, 0])


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.ones(4, np.float32), r"query_weights (4,) must be (5,) or (2, 5)"),
        (np.ones(5, int), "query_weights is int32: it must be floating point"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(ValueError) as error:
        attn.attend_pooled(QUERY, KEY, VALUE, query_weights=weights)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "layer", [keras.Attention(use_scale=True), keras.MultiHeadAttention(2, 3, output_shape=5, attention_axes=-2)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_the_mean_of_a_layer_is_the_mean_of_its_call(layer, padded):
    x, y = QUERY[:, :, 0], KEY[:, :, 0]
    options = {"value_mask": np.arange(7) < np.array([[7], [4]])} if padded else {}

    @jax.jit
    def initialised(x, y):
        return layer.init(jax.random.key(0), x, y), layer.init(jax.random.key(0), x, y, method="mean")

    @jax.jit
    def both(variables, x, y):
        return layer.apply(variables, x, y, **options), layer.apply(variables, x, y, **options, method="mean")

    variables, of_mean = initialised(x, y)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), of_mean, variables)
    outputs, mean = both(jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), variables), x, y)  # biases begin at 0
    np.testing.assert_allclose(mean, np.mean(outputs, axis=-2), atol=1e-6)


@pytest.mark.parametrize(
    "layer", [keras.Attention(use_scale=True), keras.MultiHeadAttention(2, 3, output_shape=5, attention_axes=-2)]
)
def test_the_mean_of_a_layer_is_over_the_queries_that_it_is_told(layer):
    x, y = QUERY[:, :, 0], KEY[:, :, 0]
    over = np.array([[True, False, True, True, False], [False] * 5])

    @jax.jit
    def both(x, y):
        variables = jax.tree.map(lambda leaf: leaf + 0.1, layer.init(jax.random.key(0), x, y))
        return layer.apply(variables, x, y), layer.apply(variables, x, y, over=over, method="mean"), variables

    outputs, mean, variables = both(x, y)
    np.testing.assert_allclose(mean[0], np.mean(np.asarray(outputs)[0, [0, 2, 3]], axis=0), atol=1e-6)
    assert not np.asarray(mean)[1].any(), "over no query it is 0, and not the bias"
    with pytest.raises(ValueError, match=r"^over \(2, 7\) must be \(2, 5\)"):
        layer.apply(variables, x, y, over=np.ones((2, 7), bool), method="mean")


def test_the_mean_is_over_the_queries_of_the_axes_that_are_attended_over():
    x = random(2, 3, 4, 5)
    over = np.random.default_rng(1).random((2, 3, 4)) < 0.6
    for attention_axes, pooled in ((1, (1,)), (2, (2,)), (None, (1, 2))):
        layer = keras.MultiHeadAttention(2, 3, attention_axes=attention_axes)

        @jax.jit
        def both(x, layer=layer):
            variables = jax.tree.map(lambda leaf: leaf + 0.1, layer.init(jax.random.key(0), x, x))
            return layer.apply(variables, x, x), layer.apply(variables, x, x, over=over.tolist(), method="mean")

        outputs, actual = both(x)
        total = np.sum(np.asarray(outputs) * over[..., None], axis=pooled)
        expected = total / np.maximum(over.sum(axis=pooled), 1)[..., None]
        np.testing.assert_allclose(actual, expected, atol=2e-6)
