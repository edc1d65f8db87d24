"""How sharply the heads of a classifier attend, epoch by epoch: the entropy of their weights, by `attn.attention_statistics`.

    python scripts/head_entropies.py transformer imdb
    python scripts/head_entropies.py transformer_positional verdicts --set model.num_heads=4

Trains a page of `configs/` and looks at it after each epoch. A row of the table has the validation
accuracy, and for each layer and head the mean entropy of its weights over the words of the first validation texts, in nats.
"alike" is the entropy of weights that are all equal: the logarithm of the number of tokens that a query may attend to.
"""

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import attn
import experiments
from attn.models.classifier import PADDING, Classifier
from attn.shapes import Array
from experiments import settings
from experiments.attend import weights
from experiments.machine import devices
from experiments.report import tables
from experiments.training import build, train


@functools.partial(jax.jit, static_argnums=0)
def head_entropies(model: Classifier, params: Any, tokens: Array) -> list[Array]:
    """Returns the mean entropy of each head, `[N]` for each layer, in nats.

    Args:
      model: The classifier.
      params: Its parameters.
      tokens: int32 `[B, T]`. The mean is over the queries that are not padding.
    """
    with weights.captured() as calls:
        model.apply({"params": params}, tokens)
    words = (tokens != PADDING)[:, None]
    found = [attn.attention_statistics(query, key, **options).entropy for query, key, options in calls]
    return [jnp.sum(jnp.where(words, entropy, 0), (0, 2)) / jnp.sum(words) for entropy in found]


def alike(tokens: np.ndarray, masked: bool) -> float:
    """Returns the mean entropy of equal weights, in nats, over the words of texts `[B, T]`."""
    lengths = np.count_nonzero(tokens != PADDING, axis=1)
    return float(np.average(np.log(np.maximum(lengths, 1)), weights=lengths)) if masked else float(np.log(tokens.shape[1]))


def table(config: settings.Config, texts: int) -> str:
    """Trains a config and returns the table."""
    tokens = jnp.asarray(build.build_corpus(config).validation.tokens[:texts], jnp.int32)
    lines: list[list[str]] = []
    epochs, config.epochs = config.epochs, 1
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        for config.epochs in range(1, epochs + 1):  # a finished run goes on where its config has more epochs
            result = train.train(config, workdir, config.model.body)
            run = experiments.load(workdir)
            found = [float(entropy) for layer in head_entropies(run.model, run.params, tokens) for entropy in layer]
            lines.append([str(config.epochs), f"{100 * result['final_val_accuracy']:.2f}", *(f"{x:.3f}" for x in found)])
    heads = [f"layer {i}, head {j}" for i in range(config.model.num_layers) for j in range(config.model.num_heads)]
    equal = alike(np.asarray(tokens), config.model.mask_padding)
    return f"alike: {equal:.3f} nats\n\n" + tables.markdown(["epoch", "validation", *heads], lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="of configs/")
    parser.add_argument("data", help="imdb or verdicts")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the config")
    parser.add_argument("--texts", type=int, default=200, help="validation texts that are looked at")
    chosen = parser.parse_args(arguments)
    config = settings.load_page(chosen.page, chosen.data)
    with config.unlocked():
        config.update_from_flattened_dict(
            {field: json.loads(value) for field, value in (each.split("=", 1) for each in chosen.set)}
        )
    devices.start()
    print("\n" + table(config, chosen.texts))


if __name__ == "__main__":
    main(sys.argv[1:])
