"""The encoder-decoder transformer against float64 NumPy: logits, alignment, gradients, and greedy decoding with a cache."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformer_oracle as oracle
from oracle import STEP

from attn.models.seq2seq import TransformerConfig, TransformerSeq2Seq, greedy

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, S, U, C, D, N, H, F = 4, 5, 6, 9, 12, 3, 8, 7
SOURCES = [[4, 7, 5, 8, 4], [6, 5, 2], [8], []]
TARGETS = [[5, 4, 8, 2, 6, 3], [7, 3], [4, 4, 5, 3], [6, 3]]
POSITIONS = ("none", "sinusoidal", "rotary")


def padded(rows: list[list[int]], length: int) -> jax.Array:
    return jnp.array([row + [0] * (length - len(row)) for row in rows])


@functools.cache
def model_of(positions: str) -> tuple[Any, Any]:
    """A model of two layers, and its parameters, which are all random, scales and biases too."""
    sizes = {"embed_dim": D, "num_layers": 2, "num_heads": N, "key_dim": H, "feedforward_dim": F}
    model = TransformerSeq2Seq(TransformerConfig("transformer_seq2seq", C, S, **sizes, positions=positions, dropout_rate=0.5))
    shapes = jax.eval_shape(model.init, jax.random.key(0), padded(SOURCES, S))["params"]
    random = np.random.default_rng(6)
    return model, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape) * 0.6, jnp.float32), shapes)


def in_float64(params: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


@pytest.mark.parametrize("positions", POSITIONS)
def test_logits_and_alignment_are_those_of_the_paper(positions):
    """Of a whole source, padded ones, and one that is all padding, to which no token may attend."""
    model, params = model_of(positions)
    apply = functools.partial(model.apply, {"params": params})
    targets = padded(TARGETS, U)
    logits, aligned = jax.jit(lambda s, t: (apply(s, t), apply(s, t, method="alignment")))(padded(SOURCES, S), targets)
    for b, source in enumerate(SOURCES):
        expected, shares = oracle.logits(in_float64(params), model.config, source, [oracle.START, *targets[b, :-1].tolist()])
        np.testing.assert_allclose(logits[b], expected, atol=2e-5)
        for layer, by_place in zip(aligned, shares, strict=True):
            over = np.zeros((N, U, S))
            for place, share in by_place.items():
                over[place] = share
            np.testing.assert_allclose(layer[b], over, atol=1e-5)


def test_gradients_are_those_of_the_paper():
    """Of the loss of a padded pair, along a random direction of the parameters of each layer."""
    model, params = model_of("rotary")
    source, target = SOURCES[1], TARGETS[2]

    def loss(params: Any) -> Any:
        logits = model.apply({"params": params}, padded([source], S), padded([target], U))
        return -jnp.sum(jax.nn.log_softmax(logits[0])[jnp.arange(len(target)), jnp.array(target)])

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    exact, random = in_float64(params), np.random.default_rng(0)
    np.testing.assert_allclose(value, oracle.loss(exact, model.config, source, target), rtol=1e-6)
    for name, layer in exact.items():
        direction = jax.tree.map(lambda x: random.normal(size=x.shape), layer)
        moved = jax.tree.map(lambda x, by: x + 1j * STEP * by, layer, direction)
        expected = np.imag(oracle.loss(exact | {name: moved}, model.config, source, target)) / STEP
        along = jax.tree.map(lambda x, by: np.sum(x * by), in_float64(gradients[name]), direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(along)), expected, rtol=2e-5, err_msg=name)
    assert not np.any(gradients["embedding"]["embedding"][oracle.PADDING]), "nothing reads the padding"


@pytest.mark.parametrize("positions", POSITIONS)
def test_greedy_decoding_with_a_cache_is_that_without(positions):
    model, params = model_of(positions)
    found = jax.jit(lambda source: greedy(model, params, source, U))(padded(SOURCES, S))
    lengths = set()
    for b, source in enumerate(SOURCES):
        tokens, total, margin = oracle.greedy(in_float64(params), model.config, source, U)
        assert margin > 1e-3, "the choice is no matter of rounding"
        np.testing.assert_array_equal(found.tokens[b], tokens + [0] * (U - len(tokens)))
        np.testing.assert_allclose(found.log_probability[b], total, atol=3e-5)
        lengths.add(len(tokens))
    assert len(lengths) > 1, "targets of several lengths"
