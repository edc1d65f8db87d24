"""Predicts a label for each line of a file."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments.run_folder import Run

LABELS = ("neg", "pos")
_BATCH = 64


def predict(run: Run, lines: Iterable[bytes]) -> Iterator[str]:
    """Predicts the label of each review.

    Args:
      run: A finished run.
      lines: The reviews, as bytes.

    Yields:
      A line of JSON for each review: `label`, its `probability`, the number of `tokens` that the model read, and the number of
      words that are not in its vocabulary (`out_of_vocabulary`). The model does not see words that no training review has.
    """

    @jax.jit
    def probabilities(tokens: jax.Array) -> jax.Array:
        return jax.nn.softmax(cast(jax.Array, run.model.apply({"params": run.params}, tokens)))

    lines = iter(lines)
    while batch := [run.tokenizer.encode(line.rstrip(b"\r\n")) for line in islice(lines, _BATCH)]:
        tokens = run.tokenizer.pad([review.ids for review in batch])
        filled = np.zeros((_BATCH, tokens.shape[1]), np.int32)  # always of one shape, so that there is one compilation
        filled[: len(batch)] = tokens
        for review, row in zip(batch, np.asarray(probabilities(jnp.asarray(filled))), strict=False):
            label = int(row.argmax())
            yield json.dumps(
                {
                    "label": LABELS[label] if len(row) == len(LABELS) else str(label),
                    "probability": round(float(row[label]), 6),
                    "tokens": min(len(review.ids), run.tokenizer.max_length),
                    "out_of_vocabulary": review.out_of_vocabulary,
                }
            )
