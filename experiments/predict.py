"""Labels for the reviews of a file, a line each."""

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
    """A line of JSON for each line of bytes: `label`, its `probability`, the `tokens` the model read, and how many words of
    the review it does not know (`out_of_vocabulary`; a word that no training review has is left out altogether)."""

    @jax.jit
    def probabilities(tokens: jax.Array) -> jax.Array:
        return jax.nn.softmax(cast(jax.Array, run.model.apply({"params": run.params}, tokens)))

    lines = iter(lines)
    while batch := [run.tokenizer.encode(line.rstrip(b"\r\n")) for line in islice(lines, _BATCH)]:
        tokens = run.tokenizer.pad([review.ids for review in batch])
        filled = np.zeros((_BATCH, tokens.shape[1]), np.int32)  # one shape, one compilation
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
