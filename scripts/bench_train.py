"""Milliseconds a train step of the blog's four models: ours, and the same model as others have it.

    python scripts/bench_train.py
    python scripts/bench_train.py --models transformer --rounds 3 --peers linen

ours: `experiments.steps.train` as the runner calls it, one virtual CPU device a core. linen: the model as one would write it
down in flax.linen, with `optax.adam`, the whole batch under one `jax.jit`. keras-tensorflow: the model of Keras 3 layers
through `train_on_batch`, compiled with Keras' defaults (on a CPU its jit_compile="auto" is False; `fit` calls the same
compiled function).

The contenders of a model run in turn, A B C A B C …, so what else the machine does meets all of them. A ratio is taken within
a round, so its median is not the ratio of the medians. The first step, which compiles, has a column of its own and no
compilation cache. The tokens are random: nothing is masked, so a step takes as long on any data.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from attn.models.classifier import Classifier, ClassifierConfig
from experiments import build, commands, report, settings, steps
from scripts.turns import cells, conditions, time_in_turn

VOCABULARY = 10_000


class Workload(NamedTuple):
    """What every contender trains, and on what."""

    config: settings.Config  # the page of the lab notebook
    model: ClassifierConfig
    tokens: np.ndarray  # uint16 [B, T], as the corpora hold them
    labels: np.ndarray  # int8 [B]


class Contender(NamedTuple):
    """A model that is ready to train: its size, and a train step that returns when it is done."""

    parameters: int
    step: Callable[[], None]


def make_workload(name: str, batch_size: int, length: int) -> Workload:
    """The page `configs/NAME.py` on a batch of random tokens."""
    config = settings.load_page(name, "imdb")
    config.batch_size = batch_size
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, VOCABULARY, (batch_size, length), np.uint16)
    labels = rng.integers(0, config.model.num_classes, batch_size, np.int8)
    return Workload(config, settings.model_config(config, VOCABULARY, length), tokens, labels)


def ours(workload: Workload) -> Contender:
    plan = build.build_plan(workload.config, Classifier(workload.model))
    state = plan.replicate(steps.initial_state(plan, jax.random.key(0)))
    examples = plan.replicate(steps.Examples(jnp.asarray(workload.tokens), jnp.asarray(workload.labels)))
    order = plan.replicate(steps.epoch_order(plan, state.rng, 0, len(workload.labels)))
    zero = plan.replicate(steps.Sums.zero())

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(steps.train(plan, state, zero, examples, order, 0, 1))

    return Contender(_size(state.params), step)


class PlainClassifier(nn.Module):
    """The model in training, of linen's own parts and with linen's initialisers."""

    config: ClassifierConfig

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        config = self.config
        x = nn.Embed(config.vocabulary_size, config.embed_dim)(tokens)
        if config.positions == "learned":
            x = x + nn.Embed(config.max_length, config.embed_dim)(jnp.arange(tokens.shape[1]))
        for index in range(config.num_layers):
            x = self._layer(index, x)
        return nn.Dense(config.num_classes)(jnp.mean(x, axis=1))

    def _layer(self, index: int, x: jax.Array) -> jax.Array:
        config, drop = self.config, nn.Dropout(self.config.dropout_rate, deterministic=False)
        if config.body == "attention":
            scale = self.param(f"scale_{index}", nn.initializers.ones, ())
            weights = nn.softmax(scale * jnp.einsum("btd,bsd->bts", x, x))
            return drop(jnp.einsum("bts,bsd->btd", weights, x))
        inner, outer = config.num_heads * config.key_dim, _output_dim(config, index)
        attended = drop(nn.MultiHeadDotProductAttention(config.num_heads, qkv_features=inner, out_features=outer)(x))
        if config.body == "multi_head":
            return attended
        x = nn.LayerNorm()(x + attended)
        hidden = nn.relu(nn.Dense(config.feedforward_dim)(x))
        return nn.LayerNorm()(x + drop(nn.Dense(config.embed_dim)(hidden)))


def linen(workload: Workload) -> Contender:
    model, optimizer = PlainClassifier(workload.model), optax.adam(workload.config.learning_rate)
    tokens, labels = (jnp.asarray(x, jnp.int32) for x in (workload.tokens, workload.labels))
    init_rng, dropout_rng = jax.random.split(jax.random.key(0))
    params = jax.jit(model.init)({"params": init_rng, "dropout": dropout_rng}, tokens[:1])
    state = params, optimizer.init(params), jnp.zeros((), jnp.int32)

    @jax.jit
    def train_step(state: Any, tokens: jax.Array, labels: jax.Array) -> Any:
        params, optimizer_state, index = state

        def mean_loss(params: Any) -> jax.Array:
            logits: Any = model.apply(params, tokens, rngs={"dropout": jax.random.fold_in(dropout_rng, index)})
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, gradient = jax.value_and_grad(mean_loss)(params)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state, index + 1), loss

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(train_step(state, tokens, labels))

    return Contender(_size(params), step)


def keras_tensorflow(workload: Workload) -> Contender:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras: Any = importlib.import_module("keras")
    model = keras_model(keras, workload.model)
    optimizer = keras.optimizers.Adam(workload.config.learning_rate)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")
    tokens, labels = (x.astype(np.int32) for x in (workload.tokens, workload.labels))

    def step() -> None:
        model.train_on_batch(tokens, labels)  # returns the loss as a number: it has waited

    return Contender(model.count_params(), step)


def keras_model(keras: Any, config: ClassifierConfig) -> Any:
    """The model of Keras' own layers."""
    layers = keras.layers

    class AddPositions(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=input_shape[1:], initializer="uniform")

        def call(self, x):
            return x + self.table

    tokens = keras.Input((config.max_length,), dtype="int32")
    x = layers.Embedding(config.vocabulary_size, config.embed_dim)(tokens)
    if config.positions == "learned":
        x = AddPositions()(x)
    for index in range(config.num_layers):
        if config.body == "attention":
            attended = layers.Attention(use_scale=True)([x, x])
        else:
            attention = layers.MultiHeadAttention(config.num_heads, config.key_dim, output_shape=_output_dim(config, index))
            attended = attention(x, x)
        attended = layers.Dropout(config.dropout_rate)(attended)
        if config.body == "transformer":
            x = layers.LayerNormalization(epsilon=1e-6)(x + attended)
            hidden = layers.Dense(config.feedforward_dim, activation="relu")(x)
            hidden = layers.Dropout(config.dropout_rate)(layers.Dense(config.embed_dim)(hidden))
            x = layers.LayerNormalization(epsilon=1e-6)(x + hidden)
        else:
            x = attended
    probabilities = layers.Dense(config.num_classes, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(tokens, probabilities)


PEERS = {"linen": linen, "keras-tensorflow": keras_tensorflow}
NEEDS = {"linen": (), "keras-tensorflow": ("keras", "tensorflow")}  # beyond what ours needs: the extra "bench"


def _output_dim(config: ClassifierConfig, index: int) -> int:
    return config.output_dims[index] if config.body == "multi_head" else config.embed_dim


def _size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def bench(name: str, makers: Mapping[str, Callable[[Workload], Contender]], arguments: argparse.Namespace) -> list[list[str]]:
    """The table's rows for a model, one a contender; ValueError where their sizes differ, since then they are not one model."""
    print(f"{name}: {', '.join(makers)}", file=sys.stderr, flush=True)
    workload = make_workload(name, arguments.batch_size, arguments.length)
    contenders = {contender: make(workload) for contender, make in makers.items()}
    sizes = {contender: made.parameters for contender, made in contenders.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{name}: the contenders differ in their number of parameters: {sizes}")
    seconds = time_in_turn({contender: made.step for contender, made in contenders.items()}, arguments.rounds)
    return [[name, f"{sizes[c]:,}", c, *cells(seconds[c], seconds["ours"])] for c in contenders]


def main() -> None:
    arguments = parse(sys.argv[1:])
    commands.use_all_cores()
    jax.config.update("jax_enable_compilation_cache", False)
    missing = {name: [m for m in NEEDS[name] if importlib.util.find_spec(m) is None] for name in arguments.peers}
    makers = {"ours": ours} | {name: PEERS[name] for name in arguments.peers if not missing[name]}
    rows = [row for model in arguments.models for row in bench(model, makers, arguments)]
    print(conditions(f"batch {arguments.batch_size}, {arguments.length} tokens", arguments.rounds, NEEDS["keras-tensorflow"]))
    for name, modules in missing.items():
        if modules:
            print(f"{name} is left out: {' and '.join(modules)} not installed (the extra bench has it)")
    header = ["model", "parameters", "contender", "ms a step", "peer / ours", "min", "max", "first step, s"]
    print("\n" + report.table(header, rows))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=settings.MODELS, default=settings.MODELS)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    sizes = {"rounds": 9, "batch_size": 512, "length": 256}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    values = parser.parse_args(arguments)
    for name in sizes:
        if getattr(values, name) < 1:
            parser.error(f"--{name}={getattr(values, name)} is not positive")
    return values


if __name__ == "__main__":
    main()
