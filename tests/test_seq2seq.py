"""The encoder-decoder models: recurrent ones against NumPy, and decoding in steps against exhaustive search over the whole."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.models.seq2seq import (
    RecurrentConfig,
    RecurrentSeq2Seq,
    TransformerConfig,
    TransformerSeq2Seq,
    beam,
    greedy,
    recurrent,
)
from attn.models.seq2seq.tokens import END, PADDING, START

pytestmark = pytest.mark.usefixtures("fast_compilation")

S, U, C, E, D = 4, 3, 6, 3, 8
RANDOM = np.random.default_rng(1)
SOURCE = jnp.array([[4, 5, 4, 2], [5, 4, 0, 0]])
TARGET = jnp.array([[5, 4, 3], [4, 3, 0]])
RECURRENT = {
    "body": "recurrent_seq2seq", "vocabulary_size": C, "max_length": S, "embed_dim": E, "hidden_dim": D, "encoder_cell": "gru",
    "bidirectional": True, "score": "additive", "dropout_rate": 0.5,
}  # fmt: skip
TRANSFORMER = {
    "body": "transformer_seq2seq", "vocabulary_size": C, "max_length": S, "embed_dim": D, "num_layers": 2, "num_heads": 2,
    "key_dim": 6, "feedforward_dim": 5, "positions": "rotary", "dropout_rate": 0.5,
}  # fmt: skip


@functools.cache
def model_of(name: str) -> tuple[Any, Any]:
    """A model and its parameters, which are all random, biases too."""
    body, _, choice = name.partition(":")
    if body == "transformer":
        model: Any = TransformerSeq2Seq(TransformerConfig(**(TRANSFORMER | {"positions": choice})))
    else:
        cell, _, score = body.partition("-")
        fields = {"encoder_cell": cell, "score": score, "bidirectional": choice != "forward"}
        model = RecurrentSeq2Seq(RecurrentConfig(**(RECURRENT | fields)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE)["params"]
    random = np.random.default_rng(len(name))
    return model, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape) * 0.7, jnp.float32), shapes)


@functools.cache
def logits_of(name: str) -> Any:
    """The compiled logits of a model, `[B, U, C]`."""
    model, params = model_of(name)
    return jax.jit(lambda source, target: model.apply({"params": params}, source, target))


MODELS = ("gru-additive", "transformer:rotary")


WORDS = [token for token in range(C) if token not in (PADDING, START)]  # what a target may consist of


@functools.cache
def next_tokens(name: str) -> dict[tuple[int, ...], float]:
    """The log-probability of the last token of every beginning for the first source, from the logits of the whole."""
    rows = np.array(list(itertools.product(WORDS, repeat=U)))
    logits = np.asarray(logits_of(name)(jnp.tile(SOURCE[:1], (len(rows), 1)), jnp.asarray(rows)), np.float64)
    each = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return {tuple(row[: i + 1]): float(by[i, row[i]]) for row, by in zip(rows.tolist(), each, strict=True) for i in range(U)}


def every_target(name: str) -> dict[tuple[int, ...], float]:
    """The log-probability of every target of at most U tokens."""
    step = next_tokens(name)
    targets = [tokens for tokens in step if END not in tokens[:-1] and (len(tokens) == U or tokens[-1] == END)]
    return {tokens: sum(step[tokens[: i + 1]] for i in range(len(tokens))) for tokens in targets}


@pytest.mark.parametrize("name", MODELS)
def test_a_wide_beam_is_exhaustive_search(name):
    model, params = model_of(name)
    targets = every_target(name)
    search = jax.jit(lambda penalty: beam(model, params, SOURCE[0], U, 64, penalty))
    for penalty in (0.0, 2.0):
        best = search(penalty)
        ranked = sorted(targets, key=lambda tokens: -targets[tokens] / ((5 + len(tokens)) / 6) ** penalty)
        assert [tuple(row[row > 0].tolist()) for row in np.asarray(best.tokens)[: len(ranked)]] == ranked
        np.testing.assert_allclose(best.log_probability[: len(ranked)], [targets[each] for each in ranked], atol=3e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_narrow_beam_and_greedy_are_those_of_their_definition(name):
    model, params = model_of(name)
    targets = every_target(name)
    step = next_tokens(name)
    found = {}
    for width in (1, 2):
        beginnings = {(): 0.0}
        for _ in range(U):
            longer = {tokens: total for tokens, total in beginnings.items() if END in tokens}
            for tokens, total in beginnings.items():
                if END not in tokens:
                    longer |= {(*tokens, word): total + step[(*tokens, word)] for word in WORDS}
            beginnings = dict(sorted(longer.items(), key=lambda item: -item[1])[:width])
        found[width] = beginnings
    two = jax.jit(lambda: beam(model, params, SOURCE[0], U, 2))()
    assert [tuple(row[row > 0].tolist()) for row in np.asarray(two.tokens)] == list(found[2])
    np.testing.assert_allclose(two.log_probability, [targets[tokens] for tokens in found[2]], atol=3e-5)
    one = jax.jit(lambda: greedy(model, params, SOURCE, U))()
    [(tokens, total)] = found[1].items()
    row = np.asarray(one.tokens)[0]
    assert tuple(row[row > 0].tolist()) == tokens
    np.testing.assert_allclose(one.log_probability[0], total, atol=3e-5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(weights: Any, state: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Cho et al. 2014, in the variant whose reset gate acts behind the product (Flax, cuDNN)."""
    at = {name: (x if name[0] == "i" else state) @ w["kernel"] + w.get("bias", 0) for name, w in weights.items()}
    reset, update = sigmoid(at["ir"] + at["hr"]), sigmoid(at["iz"] + at["hz"])
    return (1 - update) * np.tanh(at["in"] + reset * at["hn"]) + update * state


def lstm(weights: Any, state: Any, x: np.ndarray) -> Any:
    hidden, carry = state
    at = {g: x @ weights["i" + g]["kernel"] + hidden @ weights["h" + g]["kernel"] + weights["h" + g]["bias"] for g in "ifgo"}
    carry = sigmoid(at["f"]) * carry + sigmoid(at["i"]) * np.tanh(at["g"])
    return sigmoid(at["o"]) * np.tanh(carry), carry


def read(weights: Any, cell: str, words: list[np.ndarray], size: int) -> list[np.ndarray]:
    """The outputs of one direction of the encoder."""
    state: Any = np.zeros(size) if cell != "lstm" else (np.zeros(size), np.zeros(size))
    outputs = []
    for x in words:
        if cell == "gru":
            state = gru(weights, state, x)
        elif cell == "lstm":
            state = lstm(weights, state, x)
        else:
            state = np.tanh(x @ weights["i"]["kernel"] + weights["i"]["bias"] + state @ weights["h"]["kernel"])
        outputs.append(state[0] if cell == "lstm" else state)
    return outputs


def scored(weights: Any, score: str, state: np.ndarray, h: np.ndarray) -> Any:
    if score == "additive":
        asked = h @ weights["key"]["kernel"] + weights["key"]["bias"]
        return weights["vector"] @ np.tanh(state @ weights["query"]["kernel"] + asked)
    if score == "bilinear":
        return state @ weights["matrix"] @ h
    if score == "cosine":
        return state @ h / np.linalg.norm(state) / np.linalg.norm(h) / weights["temperature"]
    return state @ h / (np.sqrt(len(h)) if score == "scaled_dot" else 1)


def by_numpy(name: str, source: list[int], target: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The logits and the weights of one pair without padding, word by word in float64."""
    model, params = model_of(name)
    weights = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    config, table = model.config, weights["embedding"]["embedding"]
    words = [table[token] for token in source]
    size = D // 2 if config.bidirectional else D
    h = read(weights["encoder"]["forward"], config.encoder_cell, words, size)
    last = h[-1]
    if config.bidirectional:
        back = read(weights["encoder"]["backward"], config.encoder_cell, words[::-1], size)[::-1]
        h, last = [np.concatenate(both) for both in zip(h, back, strict=True)], np.concatenate([h[-1], back[0]])

    def dense(name, x):
        return x @ weights[name]["kernel"] + weights[name]["bias"]

    state, found, shares = np.tanh(dense("bridge", last)), [], []
    for token in [START, *target[:-1]]:
        context = last
        if config.score != "none":
            e = np.exp([scored(weights, config.score, state, each) for each in h])
            shares.append(e / e.sum())
            context = sum(share * each for share, each in zip(shares[-1], h, strict=True))
        state = gru(weights["cell"], state, np.concatenate([table[token], context]))
        found.append(dense("logits", np.tanh(dense("readout", np.concatenate([state, context, table[token]])))))
    return np.array(found), np.array(shares)


@pytest.mark.parametrize(
    "name", ["gru-additive", "gru-dot:forward", "lstm-scaled_dot", "simple-cosine:forward", "simple-bilinear", "lstm-none"]
)
def test_recurrent_models_are_those_of_the_formula(name):
    model, params = model_of(name)
    logits = logits_of(name)(SOURCE, TARGET)
    pairs = ([4, 5, 4, 2], [5, 4, 3]), ([5, 4], [4, 3])  # the second one is padded in the batch
    weights = jax.jit(lambda s, t: model.apply({"params": params}, s, t, method="alignment"))(SOURCE, TARGET)
    for index, (source, target) in enumerate(pairs):
        expected, shares = by_numpy(name, source, target)
        np.testing.assert_allclose(logits[index, : len(target)], expected, atol=2e-5)
        if name.endswith("none"):
            assert weights == ()
        else:
            np.testing.assert_allclose(weights[0][index, 0, : len(target), : len(source)], shares, atol=1e-5)


def test_dropout_is_off_unless_asked_for_and_takes_its_rate():
    model, params = model_of("gru-additive")

    @jax.jit
    def noisy(rate):
        options = {"deterministic": False, "dropout_rate": rate, "rngs": {"dropout": jax.random.key(0)}}
        return model.apply({"params": params}, SOURCE, TARGET, **options)

    plain = logits_of("gru-additive")(SOURCE, TARGET)
    np.testing.assert_allclose(noisy(0.0), plain, atol=1e-6)
    assert np.abs(noisy(0.5) - plain).max() > 0.01


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score": "sum"}, "score='sum' is not one of none, dot, scaled_dot, cosine, additive, bilinear"),
        ({"encoder_cell": "rnn"}, "encoder_cell='rnn' is not one of gru, lstm, simple"),
        ({"hidden_dim": 7}, "hidden_dim=7 is odd: with bidirectional each direction has half of it"),
        ({"embed_dim": 0}, "embed_dim=0 is not positive"),
        ({"dropout_rate": 1.0}, r"dropout_rate=1.0 is not in \[0, 1\)"),
    ],
)
def test_a_recurrent_config_that_breaks_a_rule(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        RecurrentConfig(**(RECURRENT | fields))


def test_a_transformer_config_that_breaks_a_rule():
    for fields, message in (
        ({"positions": "alibi"}, "positions='alibi' is not one of none, sinusoidal, rotary"),
        ({"key_dim": 3}, "key_dim=3 is odd: positions='rotary' pairs its entries"),
        ({"embed_dim": 3, "positions": "sinusoidal"}, "embed_dim=3 is odd: positions='sinusoidal' pairs its entries"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            TransformerConfig(**(TRANSFORMER | fields))


def test_a_beam_needs_a_width_and_one_source():
    model, params = model_of("gru-additive")
    with pytest.raises(ValueError, match=r"^width=0 is not positive$"):
        beam(model, params, SOURCE[0], U, 0)
    with pytest.raises(ValueError, match=r"^source \(2, 4\) must be \[S\]: map the function for several sources$"):
        beam(model, params, SOURCE, U, 2)


def test_every_score_is_one_of_the_library():
    from attn import scores

    assert set(recurrent.SCORES) - {"none"} <= set(scores.NAMES)
