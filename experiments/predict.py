"""Predicts a label for each line of a file."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.ngram_tokenizer import NgramTokenizer
from experiments.data.tokenizer import Tokenizer
from experiments.storage.run_folder import Run

BATCH_SIZE = 64
_SHOWN = 60  # characters


def predict(
    run: Run,
    lines: Iterable[bytes],
    show_text: bool = False,
    batch_size: int = BATCH_SIZE,
    every_class: bool = False,
) -> Iterator[str]:
    """Predicts the label of each text.

    Args:
      run: A run.
      lines: The texts: any bytes, of any length.
      show_text: Whether the start of the text is shown too.
      batch_size: The number of texts that are computed together. No line is yielded before so many are read.
      every_class: Whether the probabilities of all labels are shown too.

    Yields:
      A line of JSON in ASCII for each text: `label`, its `probability`, the number of `tokens` that the model read, the number
      of words that are not in its vocabulary (`out_of_vocabulary`), and if asked for the `probabilities` of all labels by their
      names, and the first 60 characters of the `text`, with spaces for control characters. The model does not see words that
      no training text has.
    """

    @jax.jit
    def probabilities(tokens: jax.Array) -> jax.Array:
        return jax.nn.softmax(cast(jax.Array, run.model.apply({"params": run.params}, tokens)))

    lines = iter(lines)
    while batch := [_read(run.tokenizer, line.rstrip(b"\r\n")) for line in islice(lines, batch_size)]:
        tokens = run.tokenizer.pad([ids for ids, _, _ in batch])
        filled = np.zeros((batch_size, tokens.shape[1]), np.int32)  # always of one shape, so that there is one compilation
        filled[: len(batch)] = tokens
        for (ids, unknown, text), row in zip(batch, np.asarray(probabilities(jnp.asarray(filled))), strict=False):
            label = int(row.argmax())
            answer = {
                "label": run.classes[label],
                "probability": round(float(row[label]), 6),
                "tokens": len(ids),
                "out_of_vocabulary": unknown,
            }
            if every_class:
                answer["probabilities"] = {name: round(float(p), 6) for name, p in zip(run.classes, row, strict=True)}
            yield json.dumps(answer | {"text": text} if show_text else answer)


def _read(by: Tokenizer | NgramTokenizer, line: bytes) -> tuple[list[int], int, str]:
    """Returns the ids that the model reads of a line, the number of its words that are not in the vocabulary, and its start."""
    ids, unknown = by.read(line)
    start = line[: 4 * _SHOWN].decode(errors="replace")  # a character has at most four bytes
    return ids, unknown, "".join(c if c.isprintable() else " " for c in start[:_SHOWN])
