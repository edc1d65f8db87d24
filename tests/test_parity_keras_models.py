"""Whole Keras models of the blog's architectures in and out; and which are refused."""

import importlib

import jax
import numpy as np
import pytest

from attn import parity
from experiments import settings
from experiments.data import imdb_arrays

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15's variables
    pytest.mark.usefixtures("fast_compilation"),
]
PAGES = ("single_head", "multi_head", "transformer", "transformer_positional")
WORDS, LENGTH = 10_000, 256


def block_class(layers):
    """As in the Keras example, a layer that holds layers."""

    class TransformerBlock(layers.Layer):
        def __init__(self, heads, key_dim, width, inner):
            super().__init__()
            self.att = layers.MultiHeadAttention(num_heads=heads, key_dim=key_dim)
            self.ffn = importlib.import_module("keras").Sequential(
                [layers.Dense(inner, activation="relu"), layers.Dense(width)]
            )
            self.layernorm1, self.layernorm2 = (layers.LayerNormalization(epsilon=1e-6) for _ in range(2))

        def call(self, x):
            x = self.layernorm1(x + self.att(x, x))
            return self.layernorm2(x + self.ffn(x))

    return TransformerBlock


def embedding_class(layers, arange):
    class TokenAndPositionEmbedding(layers.Layer):
        def __init__(self, words, width, length):
            super().__init__()
            self.token_emb = layers.Embedding(words, width)
            self.pos_emb = layers.Embedding(length, width) if length else None

        def call(self, x):
            tokens = self.token_emb(x)
            return tokens if self.pos_emb is None else tokens + self.pos_emb(arange(x.shape[-1]))

    return TokenAndPositionEmbedding


def build(keras, page, words=WORDS, length=LENGTH, activation="softmax"):
    layers, config = keras.layers, settings.model_config(settings.load_page(page, "imdb"), words, length)
    tokens = keras.Input((length,), dtype="int32")
    positions = length if config.positions == "learned" else None
    x = embedding_class(layers, keras.ops.arange)(words, config.embed_dim, positions)(tokens)
    for index in range(config.num_layers):
        if config.body == "attention":
            x = layers.Attention(use_scale=True)([x, x])
        elif config.body == "multi_head":
            x = layers.MultiHeadAttention(config.num_heads, config.key_dim, output_shape=config.output_dims[index])(x, x)
        else:
            x = block_class(layers)(config.num_heads, config.key_dim, config.embed_dim, config.feedforward_dim)(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(tokens, layers.Dense(config.num_classes, activation=activation)(x))
    rng = np.random.default_rng(0)
    model.set_weights([(0.3 * rng.normal(size=w.shape)).astype(np.float32) for w in model.get_weights()])
    return model, config


def logits(model, parts):
    """Of a Keras model that ends in a softmax, up to a constant of the row."""
    state = [[x.value for x in variables] for variables in (model.trainable_variables, model.non_trainable_variables)]
    probabilities = jax.jit(lambda state, tokens: model.stateless_call(*state, tokens)[0])
    return centred(np.log(np.concatenate([np.asarray(probabilities(state, part), np.float64) for part in parts])))


def centred(x):
    return x - x.mean(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def reviews(imdb_data_dir):
    return imdb_arrays.load(data_dir=imdb_data_dir).test().tokens[:512].astype(np.int32)


@pytest.mark.parametrize("page", PAGES)
def test_a_blog_models_logits_on_real_reviews(keras, page, reviews):
    model, config = build(keras, page)
    model.set_weights([w / 3 for w in model.get_weights()])  # probabilities of 1 have no logits
    classifier, params = parity.from_keras(model)
    assert (classifier.config.body, classifier.config.positions) == (config.body, config.positions)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == model.count_params()
    parts, apply = np.split(reviews, 8), jax.jit(classifier.apply)
    ours = np.concatenate([np.asarray(apply(params, part)) for part in parts])
    theirs = logits(model, parts)
    assert np.abs(theirs).max() > 0.01
    np.testing.assert_allclose(centred(ours), theirs, atol=1e-5)


@pytest.mark.parametrize("page", PAGES)
def test_there_and_back_are_the_same_bits(keras, page):
    model, _ = build(keras, page, words=50, length=11)
    before = model.get_weights()
    classifier, params = parity.from_keras(model)
    tokens = np.random.default_rng(1).integers(1, 50, (3, 11)).astype(np.int32)
    names = jax.tree.structure(jax.eval_shape(classifier.init, jax.random.key(0), tokens)["params"])
    assert jax.tree.structure(params["params"]) == names
    model.set_weights([np.zeros_like(w) for w in before])
    assert parity.to_keras(params, model) is model
    for now, was in zip(model.get_weights(), before, strict=True):
        assert now.tobytes() == was.tobytes()


def test_a_model_that_is_connected_otherwise_is_refused(keras):
    """Pre-norm has the same layers."""
    layers = keras.layers
    tokens = keras.Input((9,), dtype="int32")
    x = layers.Embedding(30, 6)(tokens)
    normed = layers.LayerNormalization(epsilon=1e-6)
    after = layers.LayerNormalization(epsilon=1e-6)
    y = normed(x)
    x = x + layers.MultiHeadAttention(2, 3)(y, y)
    x = after(x + layers.Dense(6)(layers.Dense(7, activation="relu")(x)))
    model = keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    with pytest.raises(ValueError, match=r"has the layers of a transformer classifier, but connects them differently"):
        parity.from_keras(model)


def test_models_that_pool_or_mask_otherwise_are_refused(keras):
    """What differs only where there is padding, or only with weights that are not fresh."""
    layers = keras.layers
    tokens = keras.Input((9,), dtype="int32")

    def attended(mask_zero, add):
        x = layers.Embedding(30, 6, mask_zero=mask_zero)(tokens)
        x = layers.LayerNormalization(epsilon=1e-6)(add([x, layers.MultiHeadAttention(2, 3)(x, x)]))
        return layers.LayerNormalization(epsilon=1e-6)(add([x, layers.Dense(6)(layers.Dense(7, activation="relu")(x))]))

    def classified(x, **options):
        return keras.Model(tokens, layers.Dense(2, **options)(x))

    pool = layers.GlobalAveragePooling1D
    kept = parity.from_keras(classified(pool()(attended(True, lambda pair: layers.Add()(pair)))))
    assert kept[0].config.mask_padding
    plain = layers.Attention(use_scale=True)([layers.Embedding(30, 6)(tokens)] * 2)
    causal = layers.Embedding(30, 6)(tokens)
    causal = layers.Attention(use_scale=True)([causal, causal], use_causal_mask=True)
    others = {
        "the mask is lost": classified(pool()(attended(True, lambda pair: pair[0] + pair[1]))),
        "max": classified(layers.GlobalMaxPooling1D()(plain)),
        "tanh": classified(layers.Activation("tanh")(pool()(plain))),
        "causal": classified(pool()(causal)),
    }
    for model in others.values():
        before = model.get_weights()
        with pytest.raises(ValueError, match=r"connects them differently"):
            parity.from_keras(model)
        assert all(np.array_equal(now, was) for now, was in zip(model.get_weights(), before, strict=True))


def test_shapes_that_no_classifier_has_are_refused(keras):
    layers = keras.layers
    tokens = keras.Input((9,), dtype="int32")
    x = layers.Embedding(30, 6)(tokens)
    x = layers.Attention(use_scale=True)([x, x])
    pooled = layers.GlobalAveragePooling1D()(x)
    for output, message in (
        (layers.Dense(2)(layers.Flatten()(x)), r"has a kernel \(54, 2\): it must map 6 features to at least 2 classes"),
        (layers.Dense(1, activation="sigmoid")(pooled), r"has a kernel \(6, 1\): it must map 6 features to at least 2"),
        (layers.Dense(2)(x), r"maps \(None, 9\) to \(None, 9, 2\): it must map tokens \[B, T\] to classes \[B, C\]"),
    ):
        with pytest.raises(ValueError, match=message):
            parity.from_keras(keras.Model(tokens, output))
    with pytest.raises(ValueError, match=r"version='3.15' is for layers: a model becomes a Classifier"):
        parity.from_keras(keras.Model(tokens, layers.Dense(2)(pooled)), version="3.15")


def test_a_subclass_may_compute_anything(keras):
    class Attention(keras.layers.Attention):
        pass

    with pytest.raises(ValueError, match=r"is a test_parity_keras_models.Attention: only Attention, "):
        parity.from_keras(Attention())
    with pytest.raises(ValueError, match=r"is a builtins.NoneType: only Attention, .* can be converted"):
        parity.to_keras({}, None)


def test_a_foreign_layer_of_a_model_is_named(keras):
    layers = keras.layers
    tokens = keras.Input((9,), dtype="int32")
    x = layers.Embedding(30, 6)(tokens)
    x = layers.Attention(use_scale=True)([x, x])
    recurrent = keras.Model(tokens, layers.Dense(2)(layers.GRU(4, name="gru_a")(x)))
    with pytest.raises(ValueError, match=r"'.*' is a GRU.*: it has weights, and only Embedding, .* can be converted"):
        parity.from_keras(recurrent)
    no_scale = layers.Attention()([layers.Embedding(30, 6)(tokens)] * 2)
    model = keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(no_scale)))
    with pytest.raises(ValueError, match=r"has use_scale=False: only True can be converted"):
        parity.from_keras(model)
    with pytest.raises(ValueError, match=r"has 0 Embedding, 0 Attention, 0 MultiHeadAttention, 0 LayerNormalization, 1 Dense"):
        parity.from_keras(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))


REFUSED = {
    "gate": (lambda layers: layers.MultiHeadAttention(2, 3, use_gate=True), r"has use_gate=True: only False can be converted"),
    "window": (
        lambda layers: layers.MultiHeadAttention(2, 3, sliding_window=2),
        r"has sliding_window=2: only None can be converted",
    ),
    "not built": (lambda layers: layers.MultiHeadAttention(2, 3), r"has 0 weights instead of 8: call it once to build it"),
    "another layer": (lambda layers: layers.Dense(3), r"is a Dense: only Attention, AdditiveAttention, .* can be converted"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_cannot_be_converted_is_refused(keras, name):
    make, message = REFUSED[name]
    layer = make(keras.layers)
    with pytest.raises(ValueError, match=message) as caught:
        parity.from_keras(layer)
    assert "\n" not in str(caught.value)


def test_params_that_do_not_fit_leave_a_layer_as_it_was(keras):
    layer = keras.layers.MultiHeadAttention(2, 3)
    x = np.ones((1, 4, 6), np.float32)
    layer(x, x)
    before = layer.get_weights()
    _, params = parity.from_keras(layer)
    params = jax.tree.map(np.ones_like, params)
    params["params"]["attention_output"]["bias"] = np.ones(7, np.float32)
    with pytest.raises(ValueError, match=r"attention_output/bias has shape \(7,\): in Keras layer '.*' it has \(6,\)"):
        parity.to_keras(params, layer)
    for now, was in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, was)
