"""FLOPs counted on the jaxpr: XLA's own count where there is no loop, and loops times their trip counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax

import attn
from attn.models.classifier import Classifier
from experiments import settings
from experiments.cost import flops

X, Y = jnp.ones((3, 5)), jnp.ones((5, 7))


def attention(query, key, value, mask=None):
    scores = jnp.einsum("btnh,bsnh->bnts", query, key) / 3.0
    scores = scores if mask is None else jnp.where(mask, scores, -1e9)
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), value)


def mlp(w, x):
    hidden = jnp.tanh(x @ w[0])
    return jnp.sum((hidden @ w[1]) ** 2)


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def classifier_loss(body: str):
    """The loss of the model of a page for one example, with dense attention, and its arguments."""
    config = settings.load_page(body, "imdb")
    config.model.implementation = "dense"
    model = Classifier(settings.model_config(config, vocabulary_size=30, max_length=6))
    tokens = jax.ShapeDtypeStruct((1, 6), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]

    def loss(params, tokens):
        return -jax.nn.log_softmax(model.apply({"params": params}, tokens))[0, 1]

    return loss, params, tokens


def convolution(x, kernel, **options):
    return lax.conv_general_dilated(x, kernel, **{"window_strides": (1, 1), "padding": "SAME"} | options)


QKV = tuple(jnp.ones(shape) for shape in ((2, 4, 3, 6), (2, 5, 3, 6), (2, 5, 3, 6)))
INDEX = jnp.array([0, 2])
IMAGE, KERNEL = jnp.ones((2, 4, 9, 7)), jnp.ones((6, 4, 3, 3))
WITHOUT_LOOPS = {
    "dot": (jnp.dot, X, Y),
    "batched dot": (functools.partial(jnp.einsum, "bij,bkj->bik"), jnp.ones((2, 3, 5)), jnp.ones((2, 7, 5))),
    "two contracted axes": (functools.partial(jnp.einsum, "bij,bij->b"), jnp.ones((2, 3, 5)), jnp.ones((2, 3, 5))),
    "elementwise": (lambda x: x * x + x / 3.0 - jnp.maximum(x, 1.0), X),
    "transcendental": (lambda x: jnp.exp(x) + jnp.log(x) * jnp.tanh(x) + lax.rsqrt(x), X),
    "powers": (lambda x: x**2 + x**3 + x**5 + x**1.5, X),
    "reductions": (lambda x: jnp.sum(x) + jnp.max(x, 0).sum() + jnp.mean(x, 1).sum(), X),
    "where": (lambda x: jnp.where(x > 1.0, x, -x), X),
    "logistic": (jax.nn.sigmoid, X),
    "argmax": (lambda x: jnp.argmax(x, 1), X),
    "cumsum": (lambda x: jnp.cumsum(x, 1), X),
    "softmax": (jax.nn.softmax, X),
    "layer norm": (layer_norm, X),
    "gelu": (functools.partial(jax.nn.gelu, approximate=True), X),
    "exact gelu": (functools.partial(jax.nn.gelu, approximate=False), X),
    "lookup": (lambda table, index: jnp.take(table, index, axis=0), X, INDEX),
    "sums by index": (lambda x, index: x.at[index].add(1.0) + x.at[index].multiply(2.0, mode="clip"), X, INDEX),
    "constants": (lambda x: x * 1.0 + 0.0 + jnp.where(jnp.full((3, 5), 2.0) > 1.0, x * jnp.ones(5), jnp.tanh(x)), X),
    "convolution": (functools.partial(convolution, window_strides=(2, 1), rhs_dilation=(1, 2)), IMAGE, KERNEL),
    "transposed convolution": (functools.partial(convolution, padding=[(2, 1), (0, 3)], lhs_dilation=(2, 3)), IMAGE, KERNEL),
    "grouped convolution": (functools.partial(convolution, feature_group_count=2), IMAGE, KERNEL[:, :2]),
    "gradient of a convolution": (jax.grad(lambda x, k: (convolution(x, k) ** 2).sum(), (0, 1)), IMAGE, KERNEL),
    "attention": (attention, *QKV),
    "selection of a Python number": (lambda x: jnp.where(x > 1.0, x, -1e9), X),
    "variance": (functools.partial(jnp.var, axis=0), X),
    "gradient of what is computed again": (jax.grad(jax.checkpoint(lambda x: jnp.tanh(x @ x.T).sum())), X),
    "again without a barrier": (jax.grad(jax.checkpoint(lambda x: jnp.tanh(x @ x.T).sum(), prevent_cse=False)), X),
    "masked attention": (lambda mask, *qkv: attention(*qkv, mask), jnp.ones((2, 1, 4, 5), bool), *QKV),
    "MLP": (mlp, (jnp.ones((5, 4)), jnp.ones((4, 2))), X),
    "gradient of an MLP": (jax.value_and_grad(mlp), (jnp.ones((5, 4)), jnp.ones((4, 2))), X),
    "gradient of attention": (jax.value_and_grad(lambda *qkv: attention(*qkv).sum(), (0, 1, 2)), *QKV),
    "attend": (functools.partial(attn.attend, implementation="dense"), *QKV),
    "causal attend": (functools.partial(attn.attend, implementation="dense", causal=True), QKV[0], *QKV[:1] * 2),
}


@pytest.mark.parametrize("name", WITHOUT_LOOPS)
def test_the_count_is_that_of_xla(name: str):
    function, *arguments = WITHOUT_LOOPS[name]
    xla = jax.jit(function).lower(*arguments).cost_analysis() or {}
    found = flops.count(function, *arguments)
    assert (found.flops, found.transcendentals) == (xla.get("flops", 0), xla.get("transcendentals", 0))
    assert found.flops > 0
    assert not found.estimated


@pytest.mark.parametrize("body", ["transformer", "multi_head", "single_head"])
def test_the_count_of_a_classifier_is_that_of_xla(body: str):
    loss, *arguments = classifier_loss(body)
    for function in (loss, jax.value_and_grad(loss)):
        found = flops.count(function, *arguments)
        xla = jax.jit(function).lower(*arguments).cost_analysis() or {}
        assert (found.flops, found.transcendentals, found.estimated) == (xla["flops"], xla["transcendentals"], frozenset())


def test_a_jaxpr_counts_as_its_function():
    assert flops.count(jax.make_jaxpr(layer_norm)(X)) == flops.count(layer_norm, X) != flops.Flops()


def test_loops_count_their_trips_and_conditions_their_longest_branch():
    body = flops.count(lambda x: jnp.tanh(x @ X.T @ X), X)
    step = 2 * (2 * 3 * 5 * 3)
    assert (body.flops, body.transcendentals) == (step, 15)

    def scanned(x):
        return lax.scan(lambda x, _: (jnp.tanh(x @ X.T @ X), None), x, None, length=11)[0]

    def looped(x):
        return lax.fori_loop(2, 9, lambda _, x: jnp.tanh(x @ X.T @ X), x)

    def counted(carry):
        return carry[0] + 1, jnp.tanh(carry[1] @ X.T @ X)

    assert flops.count(scanned, X) == body.times(11)
    assert flops.count(jax.checkpoint(scanned), X) == body.times(11)
    assert flops.count(looped, X) == body.times(7)
    assert flops.count(lambda x: lax.while_loop(lambda c: c[0] < 9, counted, (2, x))[1], X).flops == 7 * (step + 1)
    assert xla_flops(scanned, X) < 2 * step + 20, "XLA counts the body once"

    branched = flops.count(lambda x: lax.cond(x[0, 0] > 0, lambda x: jnp.tanh(x @ X.T @ X), lambda x: x, x), X)
    assert step <= branched.flops <= step + 3
    assert branched.estimated == {"cond"}
    assert not flops.count(lambda x: lax.cond(x[0, 0] > 0, lambda x: x * 2.0, lambda x: x - 2.0, x), X).estimated


@pytest.mark.parametrize(
    ("start", "unfinished", "following"),
    [
        (0, lambda i: i < 9, lambda i: i + 1),
        (2, lambda i: i < 9, lambda i: i + 2),
        (0, lambda i: i <= 9, lambda i: i + 3),
        (9, lambda i: i > 0, lambda i: i - 2),
        (9, lambda i: i >= 0, lambda i: i - 3),
        (9, lambda i: i >= 0, lambda i: -3 + i),
        (0, lambda i: 9 > i, lambda i: 4 + i),  # noqa: SIM300, the counter on the right
        (9, lambda i: i < 9, lambda i: i + 1),
    ],
)
def test_a_counter_is_followed(start, unfinished, following):
    """Against the loop itself, which counts its passes."""

    def loop(x):
        return lax.while_loop(lambda c: unfinished(c[0]), lambda c: (following(c[0]), jnp.tanh(c[1]) + 1.0), (start, x))

    passes, i = 0, start
    while unfinished(i):
        passes, i = passes + 1, following(i)
    found = flops.count(lambda x: loop(x)[1], X)
    assert (found.flops, found.transcendentals, found.estimated) == (passes * 16, passes * 15, frozenset())


@pytest.mark.parametrize(
    ("start", "unfinished", "following"),
    [
        (1, lambda i: i < 9, lambda i: i * 2),
        (0, lambda i: i < 9, lambda i: 9 - i),
        (0, lambda i: i * i < 9, lambda i: i + 1),
        (0, lambda i: i > -1, lambda i: i + 1),
        (0.0, lambda i: i < 0.7, lambda i: i + 0.1),
    ],
    ids=["doubles", "swings", "squared", "endless", "of floats"],
)
def test_a_loop_of_unknown_length_counts_once_and_is_named(start, unfinished, following):
    def loop(x):
        return lax.while_loop(lambda c: unfinished(c[0]), lambda c: (following(c[0]), jnp.tanh(c[1])), (start, x))[1]

    found = flops.count(loop, X)
    assert (found.transcendentals, found.estimated) == (15, {"while"})


def test_bounds_of_a_loop_are_known_through_calls():
    @jax.jit
    def powers(number, x):
        return lax.fori_loop(0, number, lambda _, x: jnp.tanh(x), x)

    assert flops.count(lambda x: powers(7, x), X).transcendentals == 7 * 15
    assert flops.count(lambda x: lax.scan(lambda x, _: (powers(4, x), None), x, length=3)[0], X).transcendentals == 12 * 15
    assert flops.count(powers, 7, X).estimated == {"while"}


def xla_flops(function, *arguments) -> float:
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def test_random_numbers_count_all_rounds():
    """Against XLA's count for a TPU, for which JAX writes out the twenty rounds of threefry; on a CPU they are a loop."""
    key = jax.random.key(0)
    for function in (lambda k: jax.random.bits(k, (1000,)), lambda k: jax.random.split(k, 1000)):
        xla = jax.jit(function).trace(key).lower(lowering_platforms=("tpu",)).cost_analysis()
        found = flops.count(function, key)
        assert found.flops == pytest.approx(xla["flops"], rel=1e-4)
        assert found.estimated == {"random numbers"}


def test_what_is_not_known_is_named():
    assert flops.count(lambda x: lax.top_k(x, 2), X).estimated == {"top_k"}
    assert flops.count(lambda x: lax.linalg.cholesky(x @ x.T), X).estimated
    assert flops.count(jnp.linalg.inv, jnp.eye(3)).estimated


@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=["all pairs", "causal"])
def test_tiles_of_attention_count_what_they_compute(options):
    """By hand: two products of 2·B·N·T·S·H each. Causal tiles leave out what lies above the diagonal, whole tiles of it."""
    batch, length, heads, size, tile = 2, 64, 2, 4, 16
    arrays = [jax.ShapeDtypeStruct((batch, length, heads, size), jnp.float32)] * 3
    call = functools.partial(attn.attend, implementation="chunked", block=tile, **options)
    found = flops.count(call, *arrays).flops
    tiles = length // tile
    share = (tiles * (tiles + 1) / 2) / tiles**2 if options else 1
    products = share * 2 * 2 * batch * heads * length * length * size
    assert products < found < 5 * products, "beside them: the softmax, 4 to 8 operations for each of the weights"


def test_gradients_of_tiles_count_what_is_computed_again():
    """Forward and backward are two and five products of 2·B·N·T·S·H; a dense attention keeps the weights, and has four."""
    batch, length, heads, size = 2, 64, 2, 16
    arrays = [jax.ShapeDtypeStruct((batch, length, heads, size), jnp.float32)] * 3
    product = 2 * batch * heads * length * length * size

    def pulled(cotangent, *arguments, call):
        value, pull = jax.vjp(call, *arguments)
        return value, pull(cotangent)

    def cost(function, *arguments, **options):
        call = functools.partial(attn.attend, **options)
        return flops.count(functools.partial(function, call=call) if function else call, *arguments)

    tiles, dense = {"implementation": "chunked", "block": 16}, {"implementation": "dense"}
    weights = product / (2 * size)
    for options, products in ((tiles, 7), (dense, 6)):
        found = cost(pulled, arrays[0], *arrays, **options).flops
        assert products * product < found < products * product + 24 * weights
    forward = cost(None, *arrays, **tiles)
    tangent = flops.count(lambda *qkv: jax.jvp(functools.partial(attn.attend, **tiles), qkv, qkv), *arrays)
    assert tangent.flops > forward.flops + 3 * product, "the tangent is not left out"
    assert not tangent.estimated


def test_devices_share_the_work():
    """The gradient of a batch on two devices is as many operations as on one, but for their sum."""
    from experiments.training import steps

    config = settings.load_page("transformer", "imdb")
    model = Classifier(settings.model_config(config, vocabulary_size=30, max_length=6))
    found = []
    for number in (1, 2):
        plan = steps.make_plan(model, tiny.keras_adam, 8, jax.devices()[:number])
        state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(0), tiny.SCALARS)
        batch = steps.Batches(*(jax.ShapeDtypeStruct(shape, np.int32) for shape in ((8, 6), (8,), (8,))))
        found.append(flops.count(functools.partial(steps.train_step, plan), state, batch))
    assert found[0].flops == pytest.approx(found[1].flops, rel=0.1)
    parameters = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    assert found[0].flops > 6 * 8 * 6 * parameters / 30
