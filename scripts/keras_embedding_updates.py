"""How Keras updates the rows of an embedding under Adam, on its JAX and its TensorFlow backend.

    python scripts/keras_embedding_updates.py                  # seconds
    python scripts/keras_embedding_updates.py --imdb_epochs 2  # also trains single_head on IMDB: minutes

It needs the extra `bench`. On TensorFlow the gradient of an embedding is `tf.IndexedSlices`: a row for each token of the
batch, so a word that comes twice has two rows. Adam can treat it in three ways, which `adam` here writes in NumPy float64:

    summed     the rows of a word are added up first, and all words are updated. This is what a dense gradient gives.
    unsummed   as summed, but the second moment takes the sum of the squares of the rows, not the square of their sum.
    lazy       as summed, but words that are not in the batch are not updated, and their moments do not decay.

The first table compares both backends with the three, step by step, on a layer of 7 words. "tensorflow, summed" and
"tensorflow, lazy" are Keras on TensorFlow with another `update_step`. Keras 2 is compared too where the package `tf_keras` is
installed. With `--imdb_epochs`, the second table has the curves of the real model in Keras, from the same initial weights and
in the same order of reviews.
"""

import argparse
import importlib
import importlib.util
import multiprocessing
import operator
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import settings
from experiments.report import tables

WORDS, FEATURES = 7, 2
BATCHES = ([[1, 1, 2], [1, 3, 3]], [[2, 2, 4], [4, 5, 2]], [[1, 5, 0], [5, 5, 5]])  # word 6 is in none
RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7
ARMS = {"jax": "jax", "tensorflow": "tensorflow", "tensorflow, summed": "tensorflow", "tensorflow, lazy": "tensorflow"}
KERAS_2 = {"Keras 2": "Adam", "Keras 2, legacy": "legacy.Adam"}  # in the first table, where `tf_keras` is installed


def adam(way: str, table: np.ndarray, batches: Sequence[np.ndarray], slices: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Keras' Adam on the table of an embedding, in one of the three ways.

    Args:
      way: "summed", "unsummed" or "lazy".
      table: The embedding, `[W, D]`.
      batches: The words of each step, `[B, T]`.
      slices: The gradients with respect to the embedded words of each step, `[B, T, D]`.

    Returns:
      The table after each step.
    """
    w, m, v = table.astype(np.float64), np.zeros(table.shape), np.zeros(table.shape)
    tables = []
    for t, (words, rows) in enumerate(zip(batches, slices, strict=True), start=1):
        gradient, squares = np.zeros_like(w), np.zeros_like(w)
        np.add.at(gradient, words, rows)
        np.add.at(squares, words, rows**2)
        if way != "unsummed":
            squares = gradient**2
        touched = np.isin(np.arange(len(w)), words) if way == "lazy" else np.ones(len(w), bool)
        m[touched] += (1 - BETA_1) * (gradient - m)[touched]
        v[touched] += (1 - BETA_2) * (squares - v)[touched]
        rate = RATE * np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        w[touched] -= (rate * m / (np.sqrt(v) + EPSILON))[touched]
        tables.append(w.copy())
    return tables


def inputs() -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """The table, the batches and the slices of the first comparison."""
    rng = np.random.default_rng(0)
    batches = [np.array(batch, np.int32) for batch in BATCHES]
    return rng.uniform(-0.05, 0.05, (WORDS, FEATURES)), batches, [rng.normal(size=(*b.shape, FEATURES)) for b in batches]


def keras_tables(arm: str) -> list[np.ndarray]:
    """The table of Keras' Embedding after each step of Keras' Adam. The loss is linear, so that its gradient is known."""
    if arm in KERAS_2:
        keras: Any = importlib.import_module("tf_keras")
        optimizer, total = operator.attrgetter(KERAS_2[arm])(keras.optimizers), keras.backend.sum
    else:
        keras = load_keras(ARMS[arm])
        optimizer, total = with_update(keras, arm), keras.ops.sum
    table, batches, slices = inputs()
    model = keras.Sequential(
        [keras.layers.Input((len(BATCHES[0][0]),), dtype="int32"), keras.layers.Embedding(WORDS, FEATURES)]
    )
    model.set_weights([table])
    model.compile(
        optimizer(RATE, BETA_1, BETA_2, EPSILON),
        loss=lambda coefficients, embedded: total(coefficients * embedded, axis=(1, 2)),
    )
    found = []
    for words, rows in zip(batches, slices, strict=True):
        model.train_on_batch(words, len(words) * rows.astype(np.float32))  # the loss is the mean over the examples
        found.append(np.array(model.get_weights()[0], np.float64))
    return found


def load_keras(backend: str) -> Any:
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return importlib.import_module("keras")


def compare() -> list[list[str]]:
    """The rows of the first table: the largest differences of the tables, and the words that a step moves."""
    table, batches, slices = inputs()
    ways = {way: adam(way, table, batches, slices) for way in ("summed", "unsummed", "lazy")}
    found = {f"Keras on {arm}": in_process(keras_tables, arm) for arm in ARMS}
    if importlib.util.find_spec("tf_keras"):
        found |= {name: in_process(keras_tables, name) for name in KERAS_2}
    rows = []
    for name, steps in (ways | found).items():
        before = table
        for step, after in enumerate(steps, start=1):
            moved = np.flatnonzero((np.abs(after - before) > 1e-8).any(1))  # float32 rounds a table of 0.05 by 4e-9
            differences = [f"{np.abs(after - tables[step - 1]).max():.1e}" for tables in ways.values()]
            rows.append([name, str(step), " ".join(map(str, moved)), *differences])
            before = after
    return rows


def in_process(function: Any, *arguments: Any) -> Any:
    """Calls a function in a new process, since a process has one backend."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def imdb_rows(arm: str, epochs: int, seed: int) -> list[dict[str, float]]:
    """The curve of single_head in Keras. The seed gives the initial weights and the orders, the same ones for every arm."""
    keras = load_keras(ARMS[arm])
    from experiments.data import imdb_arrays
    from scripts.contenders.keras_model import keras_model

    corpus, config = imdb_arrays.load(), settings.load_page("single_head", "imdb")
    model = keras_model(keras, settings.model_config(config, imdb_arrays.VOCABULARY_SIZE, imdb_arrays.MAX_LENGTH))
    rng = np.random.default_rng(seed)
    model.set_weights([initial(rng, weight) for weight in model.get_weights()])
    optimizer = with_update(keras, arm)(config.learning_rate)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    train, validation = ([x.astype(np.int32) for x in split] for split in (corpus.train, corpus.validation))
    rows = []
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(train[0]))
        fitted = model.fit(*(x[order] for x in train), config.batch_size, shuffle=False, verbose=0, validation_data=validation)
        rows.append({"epoch": epoch} | {name: values[0] for name, values in fitted.history.items()})
    return rows


def initial(rng: np.random.Generator, weight: np.ndarray) -> np.ndarray:
    """What Keras starts with: the embedding in ±0.05, scales of 1, biases of 0, and a Glorot kernel."""
    if weight.ndim < 2:
        return weight  # Keras' own, which is not random
    limit = 0.05 if len(weight) > 1000 else np.sqrt(6 / sum(weight.shape))
    return rng.uniform(-limit, limit, weight.shape).astype(np.float32)


def with_update(keras: Any, arm: str) -> Any:
    """Keras' Adam, with the gradient of the embedding treated as the arm says."""
    _, _, way = arm.partition(", ")
    if not way:
        return keras.optimizers.Adam
    tf: Any = importlib.import_module("tensorflow")

    class Adam(keras.optimizers.Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            if not isinstance(gradient, tf.IndexedSlices):
                super().update_step(gradient, variable, learning_rate)
                return
            words, index = variable.shape[0], self._get_variable_index(variable)
            changed = [variable, self._momentums[index], self._velocities[index]]
            before = [tf.identity(tf.convert_to_tensor(x)) for x in changed]
            summed = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, words)
            super().update_step(summed, variable, learning_rate)
            if way == "lazy":
                touched = tf.math.unsorted_segment_sum(tf.ones_like(gradient.values), gradient.indices, words) > 0
                for x, old in zip(changed, before, strict=True):
                    x.assign(tf.where(touched, tf.convert_to_tensor(x), old))

    return Adam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imdb_epochs", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    arguments = parser.parse_args()
    print(tables.markdown(["table of", "step", "words moved", "to summed", "to unsummed", "to lazy"], compare()), flush=True)
    rows = []
    for seed in range(arguments.seeds if arguments.imdb_epochs else 0):
        for arm in arguments.arms:
            print(f"seed {seed}: {arm}", file=sys.stderr, flush=True)
            for row in in_process(imdb_rows, arm, arguments.imdb_epochs, seed):
                rows.append([arm, str(seed), str(row["epoch"]), *(f"{row[name]:.4f}" for name in METRICS)])
                print(rows[-1], file=sys.stderr, flush=True)
    if rows:
        print("\n" + tables.markdown(["Keras on", "seed", "epoch", *METRICS], rows))


METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


if __name__ == "__main__":
    main()
