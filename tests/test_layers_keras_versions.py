"""`version=` of the Keras layers: what Keras 2 answers, from `scripts/keras2_answers.py`, and the contract beside it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import positions, score_mods
from attn.layers import initializers, keras
from scripts import keras2_answers as recorded

pytestmark = pytest.mark.usefixtures("fast_compilation")
with np.load(Path(__file__).parent / "data" / "keras_2.npz", allow_pickle=False) as file:
    ANSWERS = dict(file)
INPUTS = [ANSWERS[name] for name in ("query", "value", "key")]
WEIGHTS = {
    "dot": ["scale"],
    "concat": ["scale", "concat_score_weight"],
    "additive": ["scale"],
    "multi_head": [f"{layer}/{part}" for layer in ("query", "key", "value", "attention_output") for part in ("kernel", "bias")],
    "multi_head_plain": [f"{layer}/kernel" for layer in ("query", "key", "value", "attention_output")],
}


def params_of(name: str) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for index, path in enumerate(WEIGHTS[name]):
        folder, _, leaf = path.rpartition("/")
        (params.setdefault(folder, {}) if folder else params)[leaf] = ANSWERS[f"{name}/weights/{index}"]
    return {"params": params}


def layer_of(name: str, version: Any):
    kind, options = recorded.LAYERS[name]
    return getattr(keras, kind)(**options, version=version)


def answer(name: str, masks: str, version: Any):
    chosen, layer, params = recorded.MASKS[masks], layer_of(name, version), params_of(name)
    scored = chosen if "multi" in name else {key: mask for key, mask in chosen.items() if key != "query_mask"}

    @jax.jit
    def both(params, *inputs):
        return layer.apply(params, *inputs, **chosen), layer.apply(params, *inputs, **scored, method="attention_scores")

    return both(params, *INPUTS)


@pytest.mark.parametrize("masks", recorded.MASKS)
@pytest.mark.parametrize("name", recorded.LAYERS)
def test_keras_2_is_answered_as_it_answers(name, masks):
    """Rows without a key too, whose weights are uniform but for what −1e9 leaves."""
    for actual, part in zip(answer(name, masks, "2.11"), ("output", "scores"), strict=True):
        expected = ANSWERS[f"{name}/{masks}/{part}"]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", recorded.LAYERS)
def test_without_a_version_a_row_without_a_key_is_zero(name):
    """In the second example every key is masked. Everything else is Keras'."""
    output, scores = answer(name, "masked", None)
    expected = ANSWERS[f"{name}/masked/output"], ANSWERS[f"{name}/masked/scores"]
    output, scores = np.asarray(output), np.asarray(scores)
    np.testing.assert_allclose(output[0][recorded.QUERY_MASK[0]], expected[0][0][recorded.QUERY_MASK[0]], atol=1e-6)
    assert not scores[1].any() and np.allclose(expected[1][1].sum(axis=-1), 1)
    bias = params_of(name)["params"].get("attention_output", {}).get("bias", 0)
    assert np.all(output[1] == bias) and np.abs(expected[0][1] - bias).max() > 0.01


def test_keras_3_gives_the_mean_of_all_values_on_its_fused_path_and_zero_on_the_other():
    name = "multi_head"
    mask, params = recorded.VALUE_MASK, params_of(name)
    fused, scores = answer(name, "causal", "3.15")
    value = params["params"]["value"]
    projected = np.einsum("sd,dnv->snv", INPUTS[1][1], value["kernel"]) + value["bias"]
    out = params["params"]["attention_output"]
    np.testing.assert_allclose(
        fused[1], np.tile(np.einsum("nv,nvo->o", projected.mean(0), out["kernel"]) + out["bias"], (4, 1)), atol=1e-5
    )
    assert not scores[1].any()
    kind, options = recorded.LAYERS[name]
    with_dropout = getattr(keras, kind)(**options, dropout=0.1, version="3.15")
    assert np.all(with_dropout.apply(params, *INPUTS, value_mask=mask)[1] == out["bias"])


def test_keras_3_forgets_an_explicit_query_mask():
    params, mask = params_of("multi_head"), recorded.QUERY_MASK
    forgetful, whole = (
        layer_of("multi_head", "3.15").apply(params, *INPUTS, **chosen) for chosen in ({"query_mask": mask}, {})
    )
    np.testing.assert_array_equal(forgetful, whole)
    ours = layer_of("multi_head", None).apply(params, *INPUTS, query_mask=mask)
    bias = params["params"]["attention_output"]["bias"]
    assert np.all(ours[~mask] == bias) and np.abs(forgetful[~mask] - bias).max() > 0.01


def test_initialisers_have_the_limits_of_keras_2():
    """The largest of 200 seeds' weights, of Keras' and of ours: within half a percent of the limit."""
    x = jnp.zeros((2, 16))
    layer = keras.MultiHeadAttention(2, 16, version="2.11")
    init = jax.jit(lambda rng: layer.init(rng, x, x)["params"])
    kernels = [init(jax.random.key(seed)) for seed in range(50)]
    ours = [max(float(np.abs(k[name]["kernel"]).max()) for k in kernels) for name in ("query", "attention_output")]
    np.testing.assert_allclose(ours, ANSWERS["limits"][:2], rtol=5e-3)
    np.testing.assert_allclose(ANSWERS["limits"], [(6 / (16 * 18)) ** 0.5, (6 / (2 * 32)) ** 0.5, 0.05], rtol=5e-3)


D, N, H, O = 16, 2, 12, 10  # noqa: E741
LIMITS = {
    "keras_2.11": ((6 / (D * (N + H))) ** 0.5, (6 / (N * (H + O))) ** 0.5),
    "keras_3.15": ((6 / (D + N * H)) ** 0.5, (6 / (N * H + O)) ** 0.5),
    "torch": ((6 / (D + 3 * N * H)) ** 0.5, (1 / (N * H)) ** 0.5),
}


@pytest.mark.parametrize("name", initializers.FAMILIES)
def test_each_family_has_its_limits_and_variances(name):
    x = jnp.zeros((3, D))
    layer = keras.MultiHeadAttention(N, H, output_shape=O, initializer=name)
    params = jax.jit(jax.vmap(lambda seed: layer.init(jax.random.key(seed), x, x)["params"]))(jnp.arange(300))
    query, output = np.asarray(params["query"]["kernel"]), np.asarray(params["attention_output"]["kernel"])
    if name == "flax":  # lecun_normal: variance 1 / inputs, cut at two standard deviations of the normal it was cut from
        for kernel, inputs in ((query, D), (output, N * H)):
            assert kernel.var() == pytest.approx(1 / inputs, rel=0.02)
            assert np.abs(kernel).max() == pytest.approx(2 / 0.87962566 / inputs**0.5, rel=0.01)
    else:
        for kernel, limit in zip((query, output), LIMITS[name], strict=True):
            assert np.abs(kernel).max() == pytest.approx(limit, rel=2e-3) and np.abs(kernel).max() <= limit
            assert kernel.var() == pytest.approx(limit**2 / 3, rel=0.02)
    assert all(not np.asarray(params[part]["bias"]).any() for part in ("query", "key", "value", "attention_output"))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: keras.MultiHeadAttention(2, 3, version="2.12"), r"version='2.12' is not one of '2.11', '3.15' or None"),
        (lambda: keras.GroupQueryAttention(3, 2, 1, version="2.11"), r"version='2.11' is not one of '3.15' or None"),
        (lambda: keras.GroupQueryAttention(3, 3, 2), r"num_query_heads=3 is not a multiple of num_key_value_heads=2"),
        (
            lambda: keras.MultiHeadAttention(2, 3, initializer="keras_2.1"),
            r"initializer='keras_2.1' .* did you mean 'keras_2.11'",
        ),
        (
            lambda: keras.MultiHeadAttention(2, 3, attention_axes=2),
            r"attention_axes=2 must be distinct axes of inputs of rank 3",
        ),
        (lambda: keras.MultiHeadAttention(0, 3), r"num_heads=0 must be a positive int"),
        (lambda: keras.MultiHeadAttention(2, 3, output_shape=(4, 0)), r"output_shape=0 must be a positive int"),
        (lambda: keras.MultiHeadAttention(2, 3, dropout=7.0), r"dropout=7.0 must be a number in \[0, 1\)"),
        (lambda: keras.MultiHeadAttention(2, 3, attention_axes="1"), r"attention_axes='1' must be distinct axes of inputs"),
        (lambda: keras.GroupQueryAttention(3, 4, 0), r"num_key_value_heads=0 must be a positive int"),
        (lambda: keras.Attention(score_mode="general"), r"score_mode='general' is neither 'dot' nor 'concat'"),
    ],
)
def test_what_is_no_layer_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make().init(jax.random.key(0), INPUTS[0], INPUTS[2])


@pytest.mark.parametrize(
    "masks, message",
    [
        ({"attention_mask": np.ones((4, 5))}, r"attention_mask is float64: it must be bool, where True means may attend"),
        (
            {"attention_mask": np.ones((5, 4), bool)},
            r"attention_mask \(5, 4\) must end in \(4, 5\), the axes of queries and keys",
        ),
        ({"value_mask": np.ones((2, 4), bool)}, r"value_mask \(2, 4\) must be \(2, 5\)"),
        ({"value_mask": np.ones((2, 5), int)}, r"value_mask is int64: it must be bool"),
        ({"query_mask": np.ones((2, 4))}, r"query_mask is float64: it must be bool"),
        ({"query_mask": np.ones((7, 2, 3), bool)}, r"query_mask \(7, 2, 3\) must be \(2, 4\)"),
    ],
)
@pytest.mark.parametrize("version", [None, "2.11", "3.15"])
@pytest.mark.parametrize("name", ["multi_head", "dot"])
def test_masks_that_do_not_fit_are_refused(name, version, masks, message):
    if name == "dot" and "attention_mask" in masks:
        return
    with pytest.raises(ValueError, match=message):
        layer_of(name, version).apply(params_of(name), *INPUTS, **masks)


@pytest.mark.parametrize("name", ["dot", "concat", "additive", "multi_head"])
def test_nan_in_a_masked_query_reaches_no_gradient(name):
    query = INPUTS[0].copy()
    query[1, 1] = np.nan  # masked by QUERY_MASK
    layer, params = layer_of(name, None), params_of(name)

    def total(query, value):
        return jnp.sum(layer.apply(params, query, value, INPUTS[2], query_mask=recorded.QUERY_MASK) ** 2)

    for gradient in jax.jit(jax.grad(total, (0, 1)))(query, INPUTS[1]):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_rows_without_a_key_are_uniform_in_float16_too():
    inputs = [x.astype(np.float16) for x in INPUTS]
    scores = keras.Attention(version="2.11").apply({}, *inputs, value_mask=recorded.VALUE_MASK, method="attention_scores")
    np.testing.assert_allclose(scores[1], 0.2, atol=1e-3)


def test_a_version_is_the_same_under_vmap_and_without_a_batch():
    layer, params = layer_of("multi_head", "3.15"), params_of("multi_head")
    whole = layer.apply(params, *INPUTS, value_mask=recorded.VALUE_MASK)
    one_by_one = jax.vmap(lambda q, v, k, mask: layer.apply(params, q, v, k, value_mask=mask))(*INPUTS, recorded.VALUE_MASK)
    np.testing.assert_allclose(one_by_one, whole, atol=1e-6)


def test_no_examples_are_no_error():
    for name in ("dot", "multi_head"):
        output = layer_of(name, None).apply(params_of(name), *(x[:0] for x in INPUTS))
        assert output.shape == (0, 4, 6)


def test_positions_of_too_few_heads_are_nan():
    """Not those of the last head, which is what an index beyond a table's end gives in JAX."""
    layer, params = layer_of("multi_head", None), params_of("multi_head")
    few, enough = (positions.Relative(score_mod=score_mods.alibi(heads)) for heads in (1, 2))
    assert np.isnan(layer.apply(params, *INPUTS, position=few)).all()
    assert np.isfinite(layer.apply(params, *INPUTS, position=enough)).all()


def test_dropout_is_of_the_weights_and_the_scores_are_those_before_it_or_after():
    """Keras returns MultiHeadAttention's before and Attention's after."""
    rngs = {"dropout": jax.random.key(3)}
    attention = keras.Attention(dropout=0.4)
    args = {"deterministic": False, "rngs": rngs}
    kept = attention.apply({}, *INPUTS, method="attention_scores", **args)
    whole = np.asarray(attention.apply({}, *INPUTS, method="attention_scores"))
    assert 0.2 < np.mean(np.asarray(kept) == 0) < 0.6
    np.testing.assert_allclose(np.where(kept == 0, 0, whole / 0.6), kept, rtol=1e-6)
    np.testing.assert_allclose(attention.apply({}, *INPUTS, **args), kept @ INPUTS[1], atol=1e-6)
    layer = keras.MultiHeadAttention(2, 3, dropout=0.4)
    params = params_of("multi_head")
    assert not np.allclose(layer.apply(params, *INPUTS, **args), layer.apply(params, *INPUTS))
    np.testing.assert_allclose(layer.apply(params, *INPUTS, method="attention_scores").sum(-1), 1, rtol=1e-5)
