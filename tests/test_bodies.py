"""Convolution and recurrence: parameter counts, NumPy with explicit loops, padding, FLOPs, and what is refused."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn

from attn.models.bodies import Convolution, Recurrence
from attn.models.classifier import PADDING, Classifier
from experiments import settings
from experiments.command_line import commands
from experiments.cost import flops, train_step
from experiments.report import pages
from experiments.training import steps

pytestmark = pytest.mark.usefixtures("fast_compilation")
LSTM = {"cell": "lstm", "output_dims": (26,)}
MODELS = {"cnn": ("cnn", {}, 4_363), "gru": ("rnn", {}, 4_260), "lstm": ("rnn", LSTM, 4_472)}
TRANSFORMER = 4_352  # of its body
TEXT = [5, 3, 11, 7, 2, 9]


def model_of(name: str, **changes) -> Classifier:
    page, own, _ = MODELS[name]
    config = settings.model_config(settings.load_page(page, "imdb"), vocabulary_size=20, max_length=11)
    return Classifier(dataclasses.replace(config, **{**own, **changes}))


def drawn(tree, scale: float = 0.5):
    """Parameters of these shapes that are all different from 0 and 1."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(structure, [jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32) for leaf in leaves])


def initial(model: Classifier):
    return drawn(jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(7, jnp.int32)))


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", MODELS)
def test_the_bodies_have_the_parameters_of_the_transformers(name):
    shapes = jax.eval_shape(model_of(name).init, jax.random.key(0), jnp.zeros(7, jnp.int32))["params"]
    body = size({part: leaves for part, leaves in shapes.items() if part not in ("embedding", "logits")})
    assert body == MODELS[name][2]
    assert abs(body - TRANSFORMER) <= 0.05 * TRANSFORMER
    assert shapes["embedding"]["tokens"]["embedding"].shape == (20, 16)


def test_a_convolution_reads_its_neighbours_in_numpy():
    """An even and an odd kernel, and an end of the text that padding does not move."""
    for width, before in ((3, 1), (4, 1)):
        layer = Convolution(5, width)
        x = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
        params = drawn(jax.eval_shape(layer.init, jax.random.key(0), x))
        kernel, bias = (np.asarray(params["params"]["convolution"][name], np.float64) for name in ("kernel", "bias"))
        for real in (7, 4):
            expected = np.zeros((real, 5))
            for t in range(real):
                for i in range(width):
                    if 0 <= t + i - before < real:
                        expected[t] += x[t + i - before] @ kernel[i]
            found = layer.apply(params, x, jnp.arange(7) < real)
            np.testing.assert_allclose(found[:real], np.maximum(expected + bias, 0), atol=1e-5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(p, x, h):
    """Cho et al. 2014, with the reset gate behind the product, as in cuDNN and in Flax."""
    r = sigmoid(x @ p["ir"]["kernel"] + p["ir"]["bias"] + h @ p["hr"]["kernel"])
    z = sigmoid(x @ p["iz"]["kernel"] + p["iz"]["bias"] + h @ p["hz"]["kernel"])
    n = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"] + r * (h @ p["hn"]["kernel"] + p["hn"]["bias"]))
    return (1 - z) * n + z * h


def lstm(p, x, state):
    c, h = state
    i, f, g, o = (x @ p[f"i{gate}"]["kernel"] + h @ p[f"h{gate}"]["kernel"] + p[f"h{gate}"]["bias"] for gate in "ifgo")
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrence_is_that_of_numpy_and_skips_padding_wherever_it_is(cell):
    layer = Recurrence(5, cell)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    params = drawn(jax.eval_shape(layer.init, jax.random.key(0), x))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"]["cell"])
    valid = np.array([False, True, True, False, True, True, False])
    for reads in (np.ones(7, bool), valid):
        h, c = np.zeros(5), np.zeros(5)
        found = layer.apply(params, x, jnp.asarray(reads))
        for t in np.flatnonzero(reads):
            if cell == "gru":
                h = gru(p, x[t].astype(np.float64), h)
            else:
                c, h = lstm(p, x[t].astype(np.float64), (c, h))
            np.testing.assert_allclose(found[t], h, atol=1e-5)
    unmasked: Any = layer.apply(params, x)
    assert not np.allclose(unmasked[4], h, atol=1e-3), "padding would be read"


@pytest.mark.parametrize("name", MODELS)
def test_a_padded_text_has_the_logits_and_gradients_of_the_text_alone(name):
    """Where padding is not masked, it has others."""
    params = initial(model_of(name))

    def loss(params, tokens, masked):
        logits = model_of(name, mask_padding=masked).apply(params, tokens)
        return logits[0, 1] - logits[0, 0], logits

    alone, padded = (jnp.array([TEXT + [PADDING] * more]) for more in (0, 5))
    found = [jax.jit(jax.grad(loss, has_aux=True), static_argnums=2)(params, tokens, True) for tokens in (alone, padded)]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(loss(params, padded, False)[1] - found[0][1]).max() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_the_words_is_seen(name):
    model = model_of(name)
    apply = jax.jit(functools.partial(model.apply, initial(model)))
    assert not np.allclose(apply(jnp.array([TEXT])), apply(jnp.array([TEXT[::-1]])), atol=1e-3)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_the_operations_of_a_recurrence_are_those_of_all_its_steps(name):
    """Against XLA where the loop is written out: it counts the body of a loop once."""
    cell, T, D, F = name, 7, 3, 5
    layer = Recurrence(F, cell)
    x = jax.ShapeDtypeStruct((T, D), jnp.float32)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    found = flops.count(layer.apply, params, x)
    gates = 3 if cell == "gru" else 4
    products = T * 2 * gates * (D * F + F * F)
    assert products < found.flops < 1.6 * products
    assert not found.estimated

    def written_out(params, x):
        linen = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[cell](F)
        state, states = linen.initialize_carry(jax.random.key(0), (D,)), []
        for t in range(T):
            state, y = linen.apply({"params": params["params"]["cell"]}, state, x[t])
            states.append(y)
        return jnp.stack(states)

    xla = jax.jit(written_out).lower(params, x).cost_analysis()
    assert (found.flops, found.transcendentals) == (xla["flops"], xla["transcendentals"])


def test_the_operations_of_a_convolution_are_counted_by_hand():
    T, D, F, k = 9, 3, 5, 4
    layer = Convolution(F, k)
    x = jax.ShapeDtypeStruct((T, D), jnp.float32)
    found = flops.count(layer.apply, jax.eval_shape(layer.init, jax.random.key(0), x), x)
    assert found.flops == 2 * D * F * k * T + 2 * T * F, "products, also with the zeros beyond the ends, the bias and relu"


def test_a_layer_with_bfloat16_is_near_that_with_float32():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)), jnp.float32)
    for kind, option in ((Convolution, 3), (Recurrence, "gru"), (Recurrence, "lstm")):
        params = drawn(jax.eval_shape(kind(5, option).init, jax.random.key(0), x))
        exact, near = (kind(5, option, dtype).apply(params, x) for dtype in (None, jnp.bfloat16))
        assert (exact.dtype, near.dtype) == (jnp.float32, jnp.bfloat16)
        np.testing.assert_allclose(exact, near, atol=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_two_devices_share_a_train_step(name):
    config = settings.load_page(MODELS[name][0], "verdicts")
    settings.check(config)
    model, found = model_of(name), []
    for number in (1, 2):
        plan = steps.make_plan(model, tiny.keras_adam, 8, jax.devices()[:number])
        state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(0), tiny.SCALARS)
        found.append(train_step.of_plan(plan, state))
    assert found[0].flops == pytest.approx(found[1].flops, rel=0.05)
    assert found[0].flops > 3 * 8 * flops.count(model.apply, *applied(model)).flops, "the gradient is twice the output"


def applied(model: Classifier):
    """The shapes of the arguments of `model.apply`, for one text."""
    tokens = jax.ShapeDtypeStruct((model.config.max_length,), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), tokens), tokens


def test_a_run_is_trained_and_the_other_commands_read_it(tmp_path: Path, monkeypatch, capsys):
    page = tiny.ROOT / "configs" / "rnn.py"
    sizes = {"embed_dim": 5, "key_dim": 5, "output_dims": "(3,)"}
    flags = [f"--config.model.{name}={value}" for name, value in sizes.items()]
    tiny.train(monkeypatch, tmp_path / "run", f"--config={page}:verdicts", *flags)
    capsys.readouterr()
    assert commands.main(["predict", f"--workdir={tmp_path / 'run'}", "--words=the plot was dull"]) == 0
    assert '"label"' in capsys.readouterr().out
    out = tmp_path / "page.html"
    assert commands.main(["attend", f"--workdir={tmp_path / 'run'}", "--words=the plot", f"--out={out}"]) == 2
    assert capsys.readouterr().err == (
        "error: config.model.body=recurrent has no attention to show: it must be one of attention, multi_head, transformer\n"
    )
    assert not out.exists()


def test_a_report_names_the_page_of_a_run():
    for page in ("cnn", "rnn"):
        config = settings.flatten(settings.load_page(page, "imdb"))
        assert pages.command(config, [3], page, "x") == (
            f"python -m experiments train --config=configs/{page}.py --workdir=runs/x/seed_3 --config.seed=3"
        )


@pytest.mark.parametrize("name", MODELS)
def test_a_microbatch_of_narrow_arrays_holds_more_texts_than_one_of_weights(name):
    config = dataclasses.replace(model_of(name).config, max_length=256)
    plans = [
        steps.make_plan(Classifier(each), tiny.keras_adam, 512, jax.devices()[:1])
        for each in (config, dataclasses.replace(config, body="transformer", num_heads=2))
    ]
    assert plans[0].microbatch_size > 8 * plans[1].microbatch_size


BAD = [
    ("cnn", {"num_heads": 2}, "num_heads=2, key_dim=16: body 'convolution' has no projections"),
    ("gru", {"key_dim": 8}, "num_heads=1, key_dim=8: body 'recurrent' has no projections"),
    ("cnn", {"kernel_size": 0}, "kernel_size=0 is not positive"),
    ("gru", {"cell": "simple"}, "cell='simple' is not one of gru, lstm"),
    ("cnn", {"output_dims": (27,)}, r"output_dims=\(27,\) must be num_layers=2 positive sizes"),
    ("gru", {"positions": "alibi"}, "positions='alibi' acts inside of projected heads: body 'recurrent' has no"),
]


@pytest.mark.parametrize("name, change, message", BAD)
def test_a_body_that_cannot_be_made_is_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        model_of(name, **change)
