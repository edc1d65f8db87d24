"""Trains attention between two sequences, with query, key and value from any of them, on a task that needs one choice.

    python scripts/two_sequences.py

An example has two sequences, as of sound and of words. Each position has a name and a colour: position s of `second` is a
token, and that of `first` is a noisy vector. Position 0 holds a question, which is a name. The others hold every name once and
every colour twice, in an order of their own for each sequence. In the task (query, key, value) one takes the name that is asked
in the query's sequence, finds it in the key's, and says which colour is at that position in the value's. So each of the eight
tasks is made for the layer with the same choice: the table has the share of right answers of each layer on each task. Chance is
one quarter.
"""

import argparse
import functools
import itertools
import sys
from pathlib import Path
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from attn.models.two_sequences import Source, TwoSequenceAttention
from experiments.report import tables

NAMES, COLOURS, NOISE, DIM = 8, 4, 0.1, 24
SEQUENCES: tuple[Source, ...] = ("first", "second")
CHOICES: list[tuple[Source, Source, Source]] = list(itertools.product(SEQUENCES, SEQUENCES, SEQUENCES))  # query, key, value
BATCH, RATE = 64, 5e-3


class Examples(NamedTuple):
    """Examples of the task.

    Attributes:
      vectors: `first`, float32 `[B, T, NAMES + COLOURS]`.
      tokens: `second`, integers `[B, T]`: name · COLOURS + colour.
      answers: integers `[B, 8]`: the colour that is right in each task.
    """

    vectors: jax.Array
    tokens: jax.Array
    answers: jax.Array


def examples(rng: jax.Array, count: int) -> Examples:
    """Makes examples."""
    name_rng, ask_rng, colour_rng, noise_rng = jax.random.split(rng, 4)
    orders, places = (jnp.argsort(jax.random.uniform(rng, (count, 2, NAMES)), -1) for rng in (name_rng, colour_rng))
    asked = jax.random.randint(ask_rng, (count, 2, 1), 0, NAMES)
    colours = jnp.concatenate([jnp.zeros_like(asked), places % COLOURS], axis=-1)
    names = jnp.concatenate([asked, orders], axis=-1)
    clean = jnp.concatenate([jax.nn.one_hot(names[:, 0], NAMES), jax.nn.one_hot(colours[:, 0], COLOURS)], axis=-1)
    vectors = clean + NOISE * jax.random.normal(noise_rng, clean.shape)
    answers = [_answer(asked, orders, colours, *map(SEQUENCES.index, choice)) for choice in CHOICES]
    return Examples(vectors, names[:, 1] * COLOURS + colours[:, 1], jnp.stack(answers, -1))


def _answer(asked: jax.Array, orders: jax.Array, colours: jax.Array, query: int, key: int, value: int) -> jax.Array:
    place = jnp.argmax(orders[:, key] == asked[:, query], axis=-1)
    return jnp.take_along_axis(colours[:, value, 1:], place[:, None], axis=-1)[:, 0]


class Model(nn.Module):
    """The layer between an embedding of each sequence and the logits `[B, COLOURS]`, which read its output at position 0."""

    choice: tuple[Source, Source, Source]

    @nn.compact
    def __call__(self, vectors: jax.Array, tokens: jax.Array) -> jax.Array:
        sequences = nn.Dense(DIM, name="first")(vectors), nn.Embed(NAMES * COLOURS, DIM, name="second")(tokens)
        memory = jnp.broadcast_to(jnp.arange(NAMES + 1) > 0, tokens.shape)  # nobody finds the question itself
        output = TwoSequenceAttention(1, DIM, *self.choice, implementation="dense")(*sequences, memory, memory)
        return nn.Dense(COLOURS, name="logits")(output[:, 0])


@functools.partial(jax.jit, static_argnums=(0, 1))
def accuracies(choice: tuple[Source, Source, Source], steps: int, rng: jax.Array) -> jax.Array:
    """Trains a layer on each of the eight tasks. Returns the share of right answers to new examples, `[8]`."""
    init_rng, train_rng, test_rng = jax.random.split(rng, 3)
    model, optimizer = Model(choice), optax.adam(optax.cosine_decay_schedule(RATE, steps))
    some = examples(test_rng, 1_000)

    def logits(params: Any, given: Examples) -> jax.Array:
        return cast(jax.Array, model.apply(params, given.vectors, given.tokens))

    def loss(params: Any, given: Examples, task: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits(params, given), given.answers[:, task]).mean()

    def train(task: jax.Array) -> jax.Array:
        def step(state: tuple[Any, Any], step_rng: jax.Array) -> tuple[tuple[Any, Any], None]:
            params, momenta = state
            slopes = jax.grad(loss)(params, examples(step_rng, BATCH), task)
            updates, momenta = optimizer.update(slopes, momenta)
            return (optax.apply_updates(params, updates), momenta), None

        params = model.init(init_rng, some.vectors[:1], some.tokens[:1])
        (params, _), _ = lax.scan(step, (params, optimizer.init(params)), jax.random.split(train_rng, steps))
        return jnp.mean(jnp.argmax(logits(params, some), -1) == some.answers[:, task])

    return lax.map(train, jnp.arange(len(CHOICES)))


def letters(choice: tuple[Source, Source, Source]) -> str:
    """Returns for example "1 2 2" for the query from the first sequence, and key and value from the second."""
    return " ".join(str(1 + SEQUENCES.index(source)) for source in choice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for choice in CHOICES:
        found = accuracies(choice, options.steps, jax.random.key(options.seed))
        rows.append([letters(choice), *(f"{float(value):.2f}" for value in found)])
        print(*rows[-1], file=sys.stderr, flush=True)
    print(tables.markdown(["layer: query key value", *map(letters, CHOICES)], rows))


if __name__ == "__main__":
    main()
