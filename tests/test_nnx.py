"""Each layer and each model inside of Flax NNX, through `flax.nnx.bridge.ToNNX`: the same bits as linen's `apply`.

How a layer is used from NNX, as `test_the_example_of_this_page` runs it:

    layer = nnx.bridge.ToNNX(keras.MultiHeadAttention(num_heads=2, key_dim=3, dropout=0.4), rngs=nnx.Rngs(0, dropout=1))
    layer.lazy_init(x, x)  # makes the parameters, for inputs of these shapes
    output = layer(x, x, value_mask=valid)
    weights = layer.attention_scores(x, x, value_mask=valid)  # another method of the layer
    trained = layer(x, x, deterministic=False)  # the dropout mask comes from the stream "dropout" of `rngs`
    again = layer(x, x, deterministic=False, rngs=nnx.Rngs(dropout=2))  # or from the streams of this call

    kernel = layer.query["kernel"][...]  # reads one parameter
    layer.query["kernel"][...] = 2 * kernel  # writes one parameter
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))  # reads all of them, as linen's `variables["params"]`
    nnx.update(layer, params)  # writes all of them, from a dict such as linen's

    optimizer = nnx.Optimizer(layer, optax.sgd(0.1), wrt=nnx.Param)
    gradient = nnx.grad(lambda layer: jnp.sum(layer(x, x) ** 2))(layer)
    optimizer.update(layer, gradient)

What is compared: the output, the gradient of each parameter and the gradient of each input of floating point, for the same
parameters. A layer with dropout is run in training mode, and both sides are given the same key: NNX takes its keys from a
stream, so linen gets the first key of an equal stream.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import attn.layers
import attn.models
from attn.layers import d2l, d2l_transformer, dense, keras
from attn.layers.keras.base import AttentionLayer
from attn.models import bodies, ngram, seq2seq, two_sequences
from attn.models.classifier import Classifier
from attn.models.seq2seq import recurrent, transformer
from attn.models.seq2seq.base import Seq2Seq
from experiments import settings

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, S, D, V, WIDTH, VOCABULARY = 2, 5, 7, 4, 3, 6, 11


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


X, Y, QUERIES, KEYS, VALUES = (random(B, *shape) for shape in ((T, WIDTH), (T, WIDTH), (T, D), (S, D), (S, V)))
TOKENS, SOURCE = (jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, (B, length))) for length in (T, S))
VALID = jnp.arange(S) < jnp.array([[4], [7]])
LENGTHS = jnp.array([4, 7])


def model(page: str) -> Classifier:
    """The page's model, in tiny sizes and with dropout where the page has a sub-layer for it."""
    config = settings.model_config(settings.load_page(page, "imdb"), VOCABULARY, T)
    sizes: dict[str, Any] = {"embed_dim": D, "key_dim": D, "feedforward_dim": V, "dropout_rate": 0.4, "mask_padding": True}
    return Classifier(dataclasses.replace(config, output_dims=(D, V)[: len(config.output_dims)], **sizes))


def pairs(kind: type[nn.Module], config: type, body: str, **fields: Any) -> nn.Module:
    """A tiny encoder-decoder model with dropout."""
    return kind(config(body, VOCABULARY, S, embed_dim=D, dropout_rate=0.4, **fields))


VALUE_MASK = {"value_mask": VALID}
TRAIN = {"deterministic": False}
CASES: dict[str, tuple[nn.Module, tuple[jax.Array, ...], dict[str, Any]]] = {  # the layer, its inputs and its options
    "keras.Attention": (keras.Attention(use_scale=True, dropout=0.4), (QUERIES, KEYS), VALUE_MASK | TRAIN),
    "keras.AdditiveAttention": (keras.AdditiveAttention(dropout=0.4), (QUERIES, KEYS), VALUE_MASK | TRAIN),
    "keras.MultiHeadAttention": (keras.MultiHeadAttention(2, V, dropout=0.4), (QUERIES, KEYS), VALUE_MASK | TRAIN),
    "keras.GroupQueryAttention": (keras.GroupQueryAttention(V, 4, 2, 0.4), (QUERIES, KEYS), TRAIN),
    "keras.TransformerBlock": (keras.TransformerBlock(2, V, 9, 0.4), (X,), {"value_mask": VALID[:, :T]} | TRAIN),
    "keras.TokenAndPositionEmbedding": (keras.TokenAndPositionEmbedding(VOCABULARY, D, T), (TOKENS,), {}),
    "d2l.DotProductAttention": (d2l.DotProductAttention(0.4), (QUERIES, KEYS, VALUES, LENGTHS), TRAIN),
    "d2l.AdditiveAttention": (d2l.AdditiveAttention(WIDTH, 0.4), (X, KEYS, VALUES, LENGTHS), TRAIN),
    "d2l.MultiHeadAttention": (d2l.MultiHeadAttention(WIDTH, 3, 0.4, True), (X, KEYS, VALUES, LENGTHS), TRAIN),
    "d2l_transformer.PositionalEncoding": (d2l_transformer.PositionalEncoding(WIDTH, 0.4), (X,), TRAIN),
    "d2l_transformer.AddNorm": (d2l_transformer.AddNorm(0.4), (X, Y), TRAIN),
    "d2l_transformer.PositionWiseFFN": (d2l_transformer.PositionWiseFFN(9, WIDTH), (X,), {}),
    "d2l_transformer.TransformerEncoderBlock": (
        d2l_transformer.TransformerEncoderBlock(WIDTH, 9, 3, 0.4),
        (X, LENGTHS),
        TRAIN,
    ),
    "d2l_transformer.TransformerEncoder": (
        d2l_transformer.TransformerEncoder(VOCABULARY, WIDTH, 9, 3, 1, 0.4),
        (TOKENS, LENGTHS),
        TRAIN,
    ),
    "dense.Dense": (dense.Dense(V, nn.initializers.lecun_normal()), (X,), {}),
    "dense.Dropout": (dense.Dropout(0.4, deterministic=False), (X,), {}),
    "classifier.Classifier, single_head": (model("single_head"), (TOKENS,), {}),
    "classifier.Classifier, multi_head": (model("multi_head"), (TOKENS,), TRAIN),
    "classifier.Classifier, transformer": (model("transformer"), (TOKENS,), {}),
    "classifier.Classifier, transformer_positional": (model("transformer_positional"), (TOKENS,), TRAIN),
    "classifier.Classifier, cnn": (model("cnn"), (TOKENS,), TRAIN),
    "classifier.Classifier, rnn": (model("rnn"), (TOKENS,), TRAIN),
    "bodies.Convolution": (bodies.Convolution(V, 2), (X, VALID[:, :T]), {}),
    "bodies.Recurrence": (bodies.Recurrence(V, "lstm"), (X, VALID[:, :T]), {}),
    "ngram.NgramClassifier, own": (
        ngram.NgramClassifier(ngram.NgramConfig("ngram_attention", VOCABULARY, T, 3, 2, "own", 0.4)),
        (TOKENS,),
        TRAIN,
    ),
    "ngram.NgramClassifier, context": (
        ngram.NgramClassifier(ngram.NgramConfig("ngram_attention", VOCABULARY, T, 2, 3, "context", 0.0, 5, 7)),
        (TOKENS,),
        {},
    ),
    "two_sequences.TwoSequenceAttention": (
        two_sequences.TwoSequenceAttention(2, V, query="first", key="second", value="second"),
        (X, VALUES, VALID[:, :T], VALID),
        {},
    ),
    "seq2seq.RecurrentSeq2Seq": (
        pairs(
            seq2seq.RecurrentSeq2Seq, seq2seq.RecurrentConfig, "recurrent_seq2seq",
            hidden_dim=WIDTH, encoder_cell="gru", bidirectional=True, score="additive",
        ),
        (SOURCE, TOKENS),
        TRAIN,
    ),
    "seq2seq.TransformerSeq2Seq": (
        pairs(
            seq2seq.TransformerSeq2Seq, seq2seq.TransformerConfig, "transformer_seq2seq",
            num_layers=1, num_heads=3, key_dim=2, feedforward_dim=V, positions="rotary",
        ),
        (SOURCE, TOKENS),
        TRAIN,
    ),
}  # fmt: skip


def results(value_and_grad: Callable[..., Any], apply: Callable[..., Any], parameters: Any, *arrays: jax.Array) -> Any:
    """What `apply` returns, the gradient of the parameters, and that of each input of floating point."""

    def loss(parameters: Any, *arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = apply(parameters, *arrays)
        return jnp.sum(jnp.sin(output)), output

    differentiable = (0, *(i for i, x in enumerate(arrays, 1) if jnp.issubdtype(x.dtype, jnp.floating)))
    (_, output), gradients = value_and_grad(loss, argnums=differentiable, has_aux=True)(parameters, *arrays)
    return output, *gradients


def randomised(params: Any) -> Any:
    """Parameters that are all different, the zeros and ones of the initialisers too."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)


def same_bits(ours: Any, theirs: Any) -> bool:
    ours, theirs = (jax.tree.map(lambda x: (x.shape, x.dtype.name, np.asarray(x).tobytes()), tree) for tree in (ours, theirs))
    return ours == theirs


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_have_the_bits_of_linen(name):
    layer, arrays, options = CASES[name]
    module = nnx.eval_shape(lambda: nnx.bridge.ToNNX(layer).lazy_init(*arrays, rngs=nnx.Rngs(0, dropout=1)))
    params = randomised(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    nnx.update(module, params)

    def in_linen(params: Any, rng: jax.Array, *arrays: jax.Array) -> Any:
        def apply(params: Any, *arrays: jax.Array) -> Any:
            return layer.apply({"params": params}, *arrays, **options, rngs={"dropout": nnx.Rngs(dropout=rng).dropout()})

        return results(jax.value_and_grad, apply, params, *arrays)

    def in_nnx(state: Any, rng: jax.Array, *arrays: jax.Array) -> Any:
        def apply(module: Any, *arrays: jax.Array) -> jax.Array:
            return module(*arrays, **options, rngs=nnx.Rngs(dropout=rng))

        output, gradient, *gradients = results(nnx.value_and_grad, apply, nnx.merge(graph, state), *arrays)
        return output, nnx.to_pure_dict(gradient), *gradients

    graph, state = nnx.split(module)
    of_linen = jax.jit(in_linen)
    rng, other = jax.random.split(jax.random.key(2))
    found = jax.jit(in_nnx)(state, rng, *arrays)
    assert same_bits(found, of_linen(params, rng, *arrays))

    # The comparison can fail: other parameters give other bits, and so does another key where there is dropout.
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    assert same_bits(found, of_linen(doubled, rng, *arrays)) is (not jax.tree.leaves(params))
    drops = options.get("deterministic") is False or isinstance(layer, dense.Dropout)
    assert same_bits(found, of_linen(params, other, *arrays)) is not drops


def is_public_layer(found: Any) -> bool:
    """A linen module with a public name and a `__call__`, which base classes may lack."""
    layer = inspect.isclass(found) and issubclass(found, nn.Module) and not found.__name__.startswith("_")
    return layer and any("__call__" in vars(base) for base in found.__mro__)


def public_layers(*packages: ModuleType) -> set[type]:
    """Those that the files of these packages define."""
    infos = [info for package in packages for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    files = [importlib.import_module(info.name) for info in infos]
    return {x for file in files for x in vars(file).values() if is_public_layer(x) and x.__module__ == file.__name__}


def test_every_layer_and_model_is_compared():
    """A part of a model is compared with it."""
    compared = {type(layer) for layer, *_ in CASES.values()}
    bases = {AttentionLayer, Seq2Seq}  # with nothing to compute
    parts = {recurrent.Encoder, transformer.Heads, transformer.FeedForward, transformer.EncoderLayer, transformer.DecoderLayer}
    assert compared == public_layers(attn.layers, attn.models) - bases - parts


def test_the_example_of_this_page():
    x, valid = X, VALID[:, :T]
    linens: Any = keras.MultiHeadAttention(num_heads=2, key_dim=3, dropout=0.4)
    layer = nnx.bridge.ToNNX(linens, rngs=nnx.Rngs(0, dropout=1))
    layer.lazy_init(x, x)
    params = nnx.to_pure_dict(nnx.state(layer, nnx.Param))
    variables = {"params": params}
    assert same_bits(layer(x, x, value_mask=valid), linens.apply(variables, x, x, value_mask=valid))
    weights = linens.apply(variables, x, x, value_mask=valid, method="attention_scores")
    assert same_bits(layer.attention_scores(x, x, value_mask=valid), weights)
    rngs = {"dropout": nnx.Rngs(dropout=2).dropout()}
    dropped = linens.apply(variables, x, x, deterministic=False, rngs=rngs)
    assert same_bits(layer(x, x, deterministic=False, rngs=nnx.Rngs(dropout=2)), dropped)
    assert not same_bits(layer(x, x, deterministic=False), layer(x, x, deterministic=False))

    kernel = layer.query["kernel"][...]
    layer.query["kernel"][...] = 2 * kernel
    assert not same_bits(layer(x, x), linens.apply(variables, x, x))
    nnx.update(layer, params)
    assert same_bits(layer(x, x), linens.apply(variables, x, x))

    optimizer = nnx.Optimizer(layer, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(layer, nnx.grad(lambda layer: jnp.sum(layer(x, x) ** 2))(layer))
    slopes = jax.grad(lambda params: jnp.sum(linens.apply({"params": params}, x, x) ** 2))(params)
    stepped = jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, slopes)
    jax.tree.map(np.testing.assert_allclose, nnx.to_pure_dict(nnx.state(layer, nnx.Param)), stepped)
