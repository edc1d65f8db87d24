"""FLOPs counted on the jaxpr: XLA's own count where there is no loop, and loops times their trip counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import attn
from attn.models.classifier import Classifier
from experiments import flops, settings

X, Y = jnp.ones((3, 5)), jnp.ones((5, 7))


def attention(query, key, value):
    scores = jnp.einsum("btnh,bsnh->bnts", query, key) / 3.0
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), value)


def mlp(w, x):
    hidden = jnp.tanh(x @ w[0])
    return jnp.sum((hidden @ w[1]) ** 2)


def layer_norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def gradient_of(function):
    """The value and the gradients, from the gradient by the value: with a constant 1 for that, XLA would leave products out."""

    def value_and_gradient(cotangent, *arguments):
        value, pull = jax.vjp(function, *arguments)
        return value, pull(cotangent)

    return value_and_gradient


QKV = tuple(jnp.ones(shape) for shape in ((2, 4, 3, 6), (2, 5, 3, 6), (2, 5, 3, 6)))
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
    "attention": (attention, *QKV),
    "MLP": (mlp, (jnp.ones((5, 4)), jnp.ones((4, 2))), X),
    "gradient of an MLP": (gradient_of(mlp), jnp.ones(()), (jnp.ones((5, 4)), jnp.ones((4, 2))), X),
    "gradient of attention": (gradient_of(attention), jnp.ones((2, 4, 3, 6)), *QKV),
    "attend": (functools.partial(attn.attend, implementation="dense"), *QKV),
}


@pytest.mark.parametrize("name", WITHOUT_LOOPS)
def test_the_count_is_that_of_xla(name: str):
    function, *arguments = WITHOUT_LOOPS[name]
    xla = jax.jit(function).lower(*arguments).cost_analysis() or {}
    found = flops.count(function, *arguments)
    assert (found.flops, found.transcendentals) == (xla.get("flops", 0), xla.get("transcendentals", 0))
    assert found.flops > 0
    assert not found.estimated


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

    def endless(x):
        return lax.while_loop(lambda x: x.sum() < 9, lambda x: x + X, x)

    assert flops.count(endless, X).estimated == {"while"}
    branched = flops.count(lambda x: lax.cond(x[0, 0] > 0, lambda x: jnp.tanh(x @ X.T @ X), lambda x: x, x), X)
    assert step <= branched.flops <= step + 3


def xla_flops(function, *arguments) -> float:
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def test_what_is_not_known_is_named():
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


def test_devices_share_the_work():
    """The gradient of a batch on two devices is as many operations as on one, but for their sum."""
    from experiments import steps

    config = settings.load_page("transformer", "imdb")
    model = Classifier(settings.model_config(config, vocabulary_size=30, max_length=6))
    found = []
    for number in (1, 2):
        plan = steps.make_plan(model, attn.keras_adam(0.01), 8, jax.devices()[:number])
        state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(0))
        batch = steps.Batches(*(jax.ShapeDtypeStruct(shape, np.int32) for shape in ((8, 6), (8,), (8,))))
        found.append(flops.count(functools.partial(steps.train_step, plan), state, batch))
    assert found[0].flops == pytest.approx(found[1].flops, rel=0.1)
    parameters = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    assert found[0].flops > 6 * 8 * 6 * parameters / 30
