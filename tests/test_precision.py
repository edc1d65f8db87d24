"""`dtype="bfloat16"`: what is computed in it, what stays float32, and how far the numbers are from those of float32."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr

from attn.kernels.fused import attention as fused
from attn.layers import d2l, d2l_transformer, keras
from attn.layers.dense import Dense
from attn.layers.initializers import glorot_uniform
from attn.models.classifier import Classifier, ClassifierConfig
from attn.positions import KINDS
from experiments import settings
from experiments.training import build, steps

pytestmark = pytest.mark.usefixtures("fast_compilation")
PAGES = {"attention": "single_head", "multi_head": "multi_head", "transformer": "transformer"}
CASES = [
    *(("transformer", kind) for kind in KINDS),
    *(("multi_head", kind) for kind in ("sinusoidal", "rotary", "t5")),
    *(("attention", kind) for kind in ("none", "learned", "sinusoidal_split")),
]
LENGTH, WORDS = 8, 30
RNG = np.random.default_rng(0)
TOKENS = (RNG.integers(1, WORDS, (16, LENGTH)) * (np.arange(LENGTH) < RNG.integers(1, LENGTH + 1, (16, 1)))).astype(np.int32)
LABELS = RNG.integers(0, 2, 16)
X = RNG.normal(size=(2, 5, 6)).astype(np.float32)


def config_of(body: str, kind: str, dtype: str) -> ClassifierConfig:
    config = settings.model_config(settings.load_page(PAGES[body], "imdb"), vocabulary_size=WORDS, max_length=LENGTH)
    return dataclasses.replace(config, positions=kind, dropout_rate=0.0, mask_padding=True, dtype=dtype)


@functools.cache
def parameters(body: str, kind: str) -> Any:
    """Those that the bfloat16 model starts from, with biases and scales that are not 0 and 1."""
    params = jax.eval_shape(Classifier(config_of(body, kind, "bfloat16")).init, jax.random.key(0), TOKENS)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 3, leaf.dtype), params)


def gradients_and_logits(body: str, kind: str, dtype: str) -> tuple[Any, jax.Array]:
    model = Classifier(config_of(body, kind, dtype))

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        logits: Any = jax.vmap(lambda tokens: model.apply(params, tokens))(TOKENS)
        return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(len(LABELS)), LABELS]), logits

    return jax.jit(jax.grad(loss, has_aux=True))(parameters(body, kind))


def distance(found: Any, exact: Any) -> float:
    return float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))


@pytest.mark.parametrize(("body", "kind"), CASES)
def test_logits_and_gradients_are_float32_and_near_those_of_the_float32_model(body: str, kind: str):
    (found, logits), (exact, exact_logits) = (gradients_and_logits(body, kind, dtype) for dtype in ("bfloat16", "float32"))
    assert logits.dtype == jnp.float32
    assert 1e-5 < distance(logits, exact_logits) < 0.02  # one rounding is up to 2⁻⁹ = 0.002
    size = float(optax.tree.norm(exact))
    for (path, leaf), other in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(exact), strict=True):
        assert leaf.dtype == jnp.float32
        error, own = float(jnp.linalg.norm(leaf - other)), float(jnp.linalg.norm(other))
        assert error < 0.03 * own + 0.003 * size, jax.tree_util.keystr(
            path
        )  # gradients of biases of keys are 0 but for rounding


def test_the_gradients_of_biases_are_summed_in_float32():
    """Over 4,096 positions. Summed in bfloat16 they are off by up to 0.3."""
    x = jnp.asarray(RNG.normal(size=(64, 64, 6)) + 1, jnp.float32)

    def gradient(dtype: Any) -> Any:
        attention = keras.MultiHeadAttention(2, 4, implementation="dense", dtype=dtype)
        layer = Dense(5, kernel_init=glorot_uniform(), dtype=dtype)
        params = attention.init(jax.random.key(0), x, x), layer.init(jax.random.key(1), x)

        def cubes(params: Any) -> Any:
            outputs = attention.apply(params[0], x, x), layer.apply(params[1], x)
            return sum(jnp.sum(output.astype(jnp.float32) ** 3) for output in outputs)

        return jax.jit(jax.grad(cubes))(params)

    found, exact = (jax.tree.leaves_with_path(gradient(dtype)) for dtype in (jnp.bfloat16, None))
    errors = {jax.tree_util.keystr(path): distance(leaf, other) for (path, leaf), (_, other) in zip(found, exact, strict=True)}
    assert len(errors) == 10
    assert max(error for name, error in errors.items() if "['key']['bias']" not in name) < 0.02, errors


@pytest.mark.parametrize("body", PAGES)
@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_activations_are_bfloat16(body: str, kind: str):
    def activations(dtype: str) -> dict[str, Any]:
        model = Classifier(config_of(body, kind, dtype))
        run = functools.partial(model.apply, capture_intermediates=True, mutable="intermediates")
        outputs = jax.eval_shape(run, parameters(body, kind), TOKENS)[1]["intermediates"]
        return {jax.tree_util.keystr(path): leaf.dtype for path, leaf in jax.tree.leaves_with_path(outputs)}

    wide, narrow = activations("float32"), activations("bfloat16")
    assert wide.keys() == narrow.keys()
    assert set(wide.values()) == {jnp.dtype(jnp.float32)}
    # The tables' rows and the sums with a bias are rounded by the layer around them; pooling and logits stay float32.
    inside = ("'tokens'", "'positions'", "'query'", "'key'", "'value'", "'attention_output'", "'logits'")
    for name, dtype in narrow.items():
        wider = name.startswith("['__call__']") or any(part in name for part in inside)
        assert dtype == (jnp.float32 if wider else jnp.bfloat16), name


def products(jaxpr: Jaxpr | ClosedJaxpr) -> Iterator[frozenset[Any]]:
    """The dtypes of the factors of every matrix product, also inside of other programs."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield frozenset(variable.aval.dtype for variable in equation.invars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr)):
            if isinstance(inner, Jaxpr | ClosedJaxpr):
                yield from products(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


def test_the_products_of_a_block_are_bfloat16():
    """Query, key, value, output and two of the feed-forward network; those inside of attention are its own business."""

    def number(dtype: str) -> int:
        model = Classifier(config_of("transformer", "none", dtype))
        program = jax.make_jaxpr(model.apply)(parameters("transformer", "none"), TOKENS)
        return list(products(program)).count(frozenset({jnp.dtype(jnp.bfloat16)}))

    assert number("float32") == 0
    assert number("bfloat16") >= 6


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (keras.Attention(use_scale=True, dtype=jnp.bfloat16), (X, X)),
        (keras.AdditiveAttention(dtype="bfloat16"), (X, X)),
        (keras.MultiHeadAttention(2, 4, dtype=jnp.bfloat16, version="2.11"), (X, X)),
        (keras.GroupQueryAttention(4, 4, 2, dtype=jnp.bfloat16), (X, X)),
        (keras.TransformerBlock(2, 4, 8, dtype=jnp.bfloat16), (X,)),
        (keras.TokenAndPositionEmbedding(WORDS, 6, LENGTH, dtype=jnp.bfloat16), (TOKENS,)),
        (d2l.DotProductAttention(0.0, dtype=jnp.bfloat16), (X, X, X)),
        (d2l.AdditiveAttention(7, 0.0, dtype=jnp.bfloat16), (X, X, X)),
        (d2l.MultiHeadAttention(6, 2, 0.0, bias=True, dtype=jnp.bfloat16), (X, X, X)),
        (d2l_transformer.PositionWiseFFN(7, 6, dtype=jnp.bfloat16), (X,)),
        (d2l_transformer.PositionalEncoding(6, 0.0, dtype=jnp.bfloat16), (X,)),
        (d2l_transformer.TransformerEncoder(WORDS, 6, 7, 2, 1, 0.0, dtype=jnp.bfloat16), (TOKENS,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_layer_computes_in_its_dtype_whatever_the_inputs(layer: Any, inputs: tuple[Any, ...]):
    params = layer.init(jax.random.key(0), *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype(jnp.float32)}
    with jax.numpy_dtype_promotion("strict"):
        found = layer.apply(params, *inputs)
    assert found.dtype == jnp.bfloat16
    assert distance(found.astype(jnp.float32), layer.clone(dtype=None).apply(params, *inputs)) < 0.02


@pytest.mark.parametrize("dtype", ["int32", "float33", int, 16])
def test_a_dtype_that_is_not_floating_point_is_refused(dtype: Any):
    for make in (keras.Attention, functools.partial(keras.TransformerBlock, 2, 4, 8),
                 functools.partial(keras.TokenAndPositionEmbedding, 9, 6)):  # fmt: skip
        with pytest.raises(ValueError, match=r"^dtype=.* must be a floating point dtype, or None$"):
            make(dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("float16", "^dtype='float16' would need a scaled loss: its range is too small; bfloat16 has that of float32$"),
        ("float64", "^dtype='float64' is neither 'float32' nor 'bfloat16'$"),
        (None, "^dtype=None is neither 'float32' nor 'bfloat16'$"),
    ],
)
def test_other_dtypes_of_a_classifier_are_refused(dtype: Any, message: str):
    with pytest.raises(ValueError, match=message):
        config_of("transformer", "none", dtype)


def test_steps_train_in_bfloat16():
    """Steps on one batch: state and sums are float32, and the loss falls."""
    tokens, labels = TOKENS.astype(np.uint16), LABELS.astype(np.int8)
    model = Classifier(config_of("transformer", "sinusoidal", "bfloat16"))
    plan = steps.make_plan(model, tiny.keras_adam, len(labels), jax.devices()[:1])
    state = plan.replicate(steps.initial_state(plan, jax.random.key(0), tiny.SCALARS._replace(learning_rate=0.003)))
    before = steps.evaluate(plan, state.params, plan.split(tokens, labels)).means()[0]
    batches = plan.batches(tokens, labels, np.broadcast_to(np.arange(len(labels)), (8, len(labels))))
    state, sums, bad = steps.train(plan, state, plan.replicate(steps.Sums.zero()), batches, 0, 8)
    assert bad == -1
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, sums.loss))} == {jnp.dtype(jnp.float32)}
    assert not any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state.optimizer))
    after = steps.evaluate(plan, state.params, plan.split(tokens, labels)).means()[0]
    assert after < sums.means()[0] < before


@pytest.mark.parametrize(
    ("body", "changes", "fits"),
    [
        ("transformer", {"positions": "rotary"}, True),
        ("multi_head", {"key_dim": 8, "num_layers": 1, "output_dims": (5,), "dropout_rate": 0.1}, True),
        ("transformer", {"dtype": "float32"}, False),
        ("transformer", {"mask_padding": True}, False),
        ("transformer", {"positions": "alibi"}, False),
        ("attention", {}, False),  # its scale is trained
    ],
)
def test_the_dtype_opens_cudnns_kernel(body: str, changes: dict[str, Any], fits: bool, monkeypatch: pytest.MonkeyPatch):
    """What would be chosen on a GPU: its rules decide here, and a stand-in runs."""
    monkeypatch.setattr(fused, "unsupported", functools.partial(fused.unsupported, platform="gpu"))
    monkeypatch.setattr(fused, "attention", lambda query, key, value, options, inputs, fallback: fallback())
    config = dataclasses.replace(config_of(body, "none", "bfloat16"), **{"mask_padding": False, **changes})
    chosen = build.attention_of(Classifier(config))
    assert [name.startswith("fused") for name in chosen] == [fits] * config.num_layers
