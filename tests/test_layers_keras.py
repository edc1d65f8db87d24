"""Keras' layers against NumPy, their initialisers against the limits that Keras computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from attn.layers import keras
from attn.positions import Relative

pytestmark = pytest.mark.usefixtures("fast_compilation")
T, S, D, E = 5, 7, 6, 9


def inputs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(T, D)).astype(np.float32), rng.normal(size=(S, D)).astype(np.float32)


def randomised(layer, *inputs):
    """Parameters of the layer's shapes that are all different, the zeros and ones of the initialisers too."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(layer.init, jax.random.key(0), *inputs))
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def apply(layer, *arguments, **options):
    """`layer.apply` as one compiled program; operation by operation, each would be compiled alone."""
    return jax.jit(lambda *arguments: layer.apply(*arguments, **options))(*arguments)


def test_attention_is_the_unscaled_dot_product_times_a_trained_scalar():
    query, value = inputs()
    layer = keras.Attention(use_scale=True)
    params = layer.init(jax.random.key(0), query, value)
    assert jax.tree.map(float, params) == {"params": {"scale": 1.0}}
    output = apply(layer, {"params": {"scale": jnp.float32(0.3)}}, query, value)
    expected = oracle.attention(query[:, None], value[:, None], value[:, None], scale=0.3)[0][:, 0]
    np.testing.assert_allclose(output, expected, atol=2e-6)


def test_attention_takes_value_before_key():
    query, value = inputs()
    key = np.roll(value, 1, axis=0)
    output = apply(keras.Attention(), {}, query, value, key)
    expected = oracle.attention(query[:, None], key[:, None], value[:, None], scale=1)[0][:, 0]
    np.testing.assert_allclose(output, expected, atol=2e-6)
    assert not np.allclose(output, apply(keras.Attention(), {}, query, key, value), atol=1e-2)


HAND = [np.array([x], np.float32) for x in ([[1, 0], [0, 1]], [[1, 2], [3, 4]], [[0, 1], [1, 0]])]  # query, value, key
ALIKE = 1 / (1 + np.exp(-1.0))  # softmax of (0, 1); of (2 tanh 1, tanh 2) it is this:
SUMMED = 1 / (1 + np.exp(np.tanh(2.0) - 2 * np.tanh(1.0)))


@pytest.mark.parametrize(
    "layer, params, printed, first",
    [
        (keras.Attention(), {}, [[2.462, 3.462], [1.538, 2.538]], 1 - ALIKE),
        (keras.Attention(score_mode="concat"), {"concat_score_weight": 1.0}, [[1.727, 2.727], [2.272, 3.272]], SUMMED),
        (keras.AdditiveAttention(use_scale=False), {}, [[1.727, 2.727], [2.272, 3.272]], SUMMED),
        (keras.AdditiveAttention(), {"scale": np.ones(2)}, [[1.727, 2.727], [2.272, 3.272]], SUMMED),
    ],
)
def test_vectors_worked_by_hand(layer, params, printed, first):
    """Those of Keras' own tests, which it prints to three digits; here to all of them."""
    output = layer.apply({"params": params}, *HAND)
    np.testing.assert_allclose(output[0], printed, atol=1e-3)
    weights = np.array([[first, 1 - first], [1 - first, first]])
    np.testing.assert_allclose(layer.apply({"params": params}, *HAND, method="attention_scores")[0], weights, rtol=1e-6)
    np.testing.assert_allclose(output[0], weights @ HAND[1][0], rtol=1e-6)


def test_identity_kernels_give_the_scaled_softmax_of_the_identity():
    """Keras' test_correctness: every head of 8 gives the weights e^(1/√8) to its own key, and 1 to the seven others."""
    size = 8
    kernel, value = np.repeat(np.eye(size)[:, None], size, axis=1), np.arange(size * size).reshape(size, size) / 100.0
    projections = {name: {"kernel": kernel, "bias": np.zeros((size, size))} for name in ("query", "key", "value")}
    output = {"kernel": np.repeat(np.eye(size)[None], size, axis=0), "bias": np.zeros(size)}
    layer = keras.MultiHeadAttention(size, size)
    params = {"params": {**projections, "attention_output": output}}
    found = apply(layer, params, np.eye(size), value, np.eye(size))
    own = np.exp(size**-0.5)
    weights = (np.ones((size, size)) + (own - 1) * np.eye(size)) / (own + size - 1)
    np.testing.assert_allclose(found, size * weights @ value, rtol=1e-5)


def test_the_mask_of_keras_own_test():
    """Its test_masking: padded queries and values, causal or not, are the pairs that may attend."""
    tokens, values = np.array([[1, 2, 3, 0, 0], [3, 3, 1, 1, 2], [1, 0, 0, 0, 0]]), np.array([[5, 4, 0], [3, 0, 0], [2, 1, 1]])
    pairs = np.array([[[1, 1, 0]] * 3 + [[0, 0, 0]] * 2, [[1, 0, 0]] * 5, [[1, 1, 1]] + [[0, 0, 0]] * 4], bool)
    rng = np.random.default_rng(0)
    query, value = (rng.normal(size=(*x.shape, 8)).astype(np.float32) for x in (tokens, values))
    layer = keras.MultiHeadAttention(2, 2)
    params = randomised(layer, query, value)
    for causal in (False, True):
        masks = {"query_mask": tokens != 0, "value_mask": values != 0, "use_causal_mask": causal}
        allowed = pairs & np.tri(5, 3, dtype=bool) if causal else pairs
        scores = apply(layer, params, query, value, **masks, method="attention_scores")
        np.testing.assert_array_equal(np.asarray(scores) > 0, np.broadcast_to(allowed[:, None], scores.shape))
        np.testing.assert_array_equal(
            apply(layer, params, query, value, **masks), apply(layer, params, query, value, attention_mask=allowed)
        )


def test_multi_head_attention_is_projection_attention_projection():
    query, value = inputs()
    layer = keras.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=4, output_shape=E)
    params = randomised(layer, query, value)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])
    heads = [
        np.einsum("td,dnh->tnh", x, p[name]["kernel"]) + p[name]["bias"]
        for name, x in (("query", query), ("key", value), ("value", value))
    ]
    mask = np.array([True, True, False, True, True, True, False])[None, None]
    expected = np.einsum("tnv,nvo->to", oracle.attention(*heads, mask)[0], p["attention_output"]["kernel"])
    output = apply(layer, params, query, value, attention_mask=mask)
    np.testing.assert_allclose(output, expected + p["attention_output"]["bias"], atol=2e-5)


@pytest.mark.parametrize("output_dim, parameters", [(16, 284), (20, 304)])
def test_the_blogs_two_layers_have_its_counts(output_dim, parameters):
    x = jnp.zeros((T, 16))
    params = jax.eval_shape(keras.MultiHeadAttention(2, 2, output_shape=output_dim).init, jax.random.key(0), x, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters


def test_transformer_block_is_post_norm():
    x, _ = inputs()
    block = keras.TransformerBlock(num_heads=2, key_dim=3, feedforward_dim=11)
    params = randomised(block, x)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p[name]["scale"] + p[name]["bias"]

    attention = apply(keras.MultiHeadAttention(2, 3), {"params": params["params"]["MultiHeadAttention_0"]}, x, x)
    x1 = norm(x + np.asarray(attention, np.float64), "LayerNorm_0")
    hidden = np.maximum(x1 @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
    expected = norm(x1 + hidden @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"], "LayerNorm_1")
    np.testing.assert_allclose(apply(block, params, x), expected, atol=1e-4)


@pytest.mark.parametrize("silent", [("Dense_1",), ("MultiHeadAttention_0", "attention_output")])
def test_dropout_is_on_both_sub_layers(silent):
    """With one branch silenced the key still matters; with both it would not."""
    x, _ = inputs()
    block = keras.TransformerBlock(num_heads=2, key_dim=3, feedforward_dim=11, dropout_rate=0.5)
    params = randomised(block, x)
    branch = params["params"]
    for name in silent:
        branch = branch[name]
    branch.update(jax.tree.map(np.zeros_like, branch))

    @jax.jit
    def dropped(rng):
        return block.apply(params, x, deterministic=False, rngs={"dropout": rng})

    first, again, other = (dropped(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, apply(block, params, x))


def limits(params):
    return jax.tree.map(lambda leaf: float(np.abs(leaf).max()), params)


def test_initialisers_have_the_limits_of_keras_2_11():
    """The conv rule on (D, N, H) kernels; 3.15 would give .354 for q, k, v and for the output at these sizes."""
    x = jnp.zeros((T, 16))
    layer = keras.MultiHeadAttention(num_heads=2, key_dim=16)
    init = jax.jit(lambda rng: layer.init(rng, x, x)["params"])
    kernels = [limits(init(jax.random.key(seed))) for seed in range(40)]
    for name, limit in (("query", 0.1443), ("key", 0.1443), ("value", 0.1443), ("attention_output", 0.3062)):
        largest = max(k[name]["kernel"] for k in kernels)
        assert 0.995 * limit < largest <= limit * 1.001
        assert all(k[name]["bias"] == 0 for k in kernels)


def test_embedding_is_uniform_and_centred():
    layer = keras.TokenAndPositionEmbedding(vocabulary_size=1000, embed_dim=16, max_length=8)
    params = jax.jit(layer.init)(jax.random.key(0), jnp.zeros(8, jnp.int32))["params"]
    for name in ("tokens", "positions"):
        table = np.asarray(params[name]["embedding"])
        assert -0.05 <= table.min() < -0.045
        assert 0.045 < table.max() <= 0.05
    assert np.asarray(params["tokens"]["embedding"]).std() == pytest.approx(0.1 / np.sqrt(12), rel=0.02)


def test_positions_are_added_and_have_an_end():
    layer = keras.TokenAndPositionEmbedding(vocabulary_size=10, embed_dim=3, max_length=4)
    tokens = np.array([7, 7, 2])
    params = randomised(layer, tokens)
    table = params["params"]
    expected = table["tokens"]["embedding"][np.asarray(tokens)] + table["positions"]["embedding"][:3]
    np.testing.assert_allclose(layer.apply(params, tokens), expected)
    with pytest.raises(ValueError, match=r"tokens \(5,\) are longer than max_length=4 positions"):
        layer.apply(params, jnp.zeros(5, jnp.int32))


def test_attention_honours_masks_and_positions_that_keras_has_for_other_layers():
    """The hand-worked weights again: e^(q · k) with q · k = 0 or 1, over the keys that are left, and turned by 90 degrees."""
    allowed = np.array([[True, False], [True, True]])
    weights = np.array([[1, 0], [ALIKE, 1 - ALIKE]])
    attend = functools.partial(keras.Attention().apply, {}, *HAND)
    np.testing.assert_allclose(attend(attention_mask=allowed[None]), (weights @ HAND[1][0])[None], rtol=1e-6)
    np.testing.assert_allclose(attend(key_mask=np.array([[False, True]])), np.tile(HAND[1][0][1], (1, 2, 1)), rtol=1e-6)
    swapped = Relative(score_mod=lambda score, batch, head, query, key: 1 - score)
    np.testing.assert_allclose(attend(position=swapped), attend()[:, ::-1], rtol=1e-6)


@pytest.mark.parametrize("layer", [keras.Attention(), keras.MultiHeadAttention(2, 3)])
def test_arguments_of_keras_are_answered_with_ours(layer):
    refusals = {
        "training": r"has no argument 'training': use deterministic=False",
        "return_attention_scores": r"has no argument 'return_attention_scores': use .*method=\"attention_scores\"",
        "mask": r"has no argument 'mask': use query_mask, value_mask and key_mask",
        "trainig": rf"^{type(layer).__name__} has no argument 'trainig'(\n|$)",
    }
    for argument, message in refusals.items():
        with pytest.raises(TypeError, match=message):
            layer.init(jax.random.key(0), *HAND, **{argument: True})
    with pytest.raises(TypeError, match=rf"^{type(layer).__name__} needs value"):
        layer.init(jax.random.key(0), HAND[0])


def test_scores_before_dropout_refuse_dropout():
    layer = keras.MultiHeadAttention(2, 3, dropout=0.5)
    with pytest.raises(ValueError, match=r"deterministic=False: the scores of MultiHeadAttention are those before dropout"):
        layer.apply({}, *HAND, deterministic=False, method="attention_scores")


def test_dropout_without_an_rng_and_inputs_of_another_batch_are_refused():
    layer = keras.Attention(dropout=0.5)
    with pytest.raises(ValueError, match=r"deterministic=False needs the rng named 'dropout': .*rngs="):
        layer.apply({}, *HAND, deterministic=False)
    with pytest.raises(ValueError, match=r"value \(3, 2, 2\) and query \(1, 2, 2\) differ in an axis"):
        layer.apply({}, HAND[0], np.ones((3, 2, 2), np.float32))


@pytest.mark.parametrize(
    "layer",
    [keras.AdditiveAttention(dropout=0.5), keras.MultiHeadAttention(2, 3, dropout=0.5), keras.TransformerBlock(2, 3, 4, 0.5)],
)
def test_dropout_does_not_change_fresh_parameters(layer):
    """With one key for everything, linen derives each key from the number of keys before it."""
    inputs = HAND[:1] if isinstance(layer, keras.TransformerBlock) else HAND
    expected = jax.jit(layer.init)(jax.random.key(3), *inputs)
    found = jax.jit(functools.partial(layer.init, deterministic=False))(jax.random.key(3), *inputs)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.ptp(jax.tree.leaves(expected)[-1]) > 0


@pytest.mark.parametrize("layer", [keras.Attention(), keras.MultiHeadAttention(2, 3)])
def test_nan_reaches_no_mean_over_no_query(layer):
    query, value, _ = HAND
    variables = jax.tree.map(lambda leaf: leaf + 0.1, layer.init(jax.random.key(0), query, value))
    over = np.array([[False, False], [True, False]])
    inputs = [np.concatenate([np.full_like(x, np.nan), x]) for x in (query, value)]
    found = np.asarray(layer.apply(variables, *inputs, over=over, method="mean"))
    assert not found[0].any()
    np.testing.assert_allclose(found[1], np.asarray(layer.apply(variables, query, value))[0, 0], rtol=1e-6)


def test_the_mean_and_the_scores_refuse_as_a_call_does():
    layer = keras.MultiHeadAttention(2, 3)
    for method in ("mean", "attention_scores"):
        init = functools.partial(layer.init, jax.random.key(0), method=method)
        with pytest.raises(TypeError, match=r"^MultiHeadAttention has no argument 'training': use deterministic=False"):
            init(*HAND, training=True)
        with pytest.raises(
            TypeError, match=r"^MultiHeadAttention has no argument 'mask': use query_mask, value_mask and key_mask"
        ):
            init(*HAND, mask=np.ones((1, 2), bool))
        with pytest.raises(TypeError, match=r"^MultiHeadAttention needs value"):
            init(HAND[0])
