"""How sharply the heads of a classifier attend, epoch by epoch: the entropy of their weights, by `attn.attention_statistics`.

    python scripts/head_entropies.py --config=configs/transformer.py
    python scripts/head_entropies.py --config=configs/transformer_positional.py:verdicts --config.model.num_heads=4

Trains a config, with the flags of `python -m experiments train`, and looks at the model after each epoch. A row of the table
has the validation accuracy, and for each layer and head the mean entropy of its weights over the words of the first validation
texts (`--texts`, 200), in nats. "alike" is the entropy of weights that are all equal: the logarithm of the number of tokens
that a query may attend to.
"""

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import attn
import experiments
from attn.models.classifier import PADDING, WITH_ATTENTION, Classifier
from attn.shapes import Array
from experiments import settings
from experiments.attend import weights
from experiments.command_line import command_flags
from experiments.errors import Refusal, UsageError
from experiments.machine import devices
from experiments.report import tables
from experiments.training import build, train

_FLAGS = {"config": None, "texts": 200}


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
    lines, epochs = [], range(1, config.epochs + 1)
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        for config.epochs in epochs:  # a finished run goes on where its config has more epochs
            result = train.train(config, workdir, config.model.body)
            run = experiments.load(workdir)
            found = [float(entropy) for layer in head_entropies(run.model, run.params, tokens) for entropy in layer]
            lines.append([str(config.epochs), f"{100 * result['final_val_accuracy']:.2f}", *(f"{x:.3f}" for x in found)])
    heads = [f"layer {i}, head {j}" for i in range(config.model.num_layers) for j in range(config.model.num_heads)]
    equal = alike(np.asarray(tokens), config.model.mask_padding)
    return f"alike: {equal:.3f} nats\n\n" + tables.markdown(["epoch", "validation", *heads], lines)


def checked(arguments: list[str]) -> tuple[settings.Config, int]:
    """Returns the config of a command line, and how many texts are looked at. Raises UsageError."""
    values, fields = command_flags.parse(arguments, _FLAGS, fields=True)
    config = command_flags.read_config(command_flags.page(values), fields, _FLAGS)
    if values.texts < 1:
        raise UsageError(f"--texts={values.texts} must be at least 1")
    if config.model.body not in WITH_ATTENTION:
        raise UsageError(f"config.model.body={config.model.body} must be one of {', '.join(WITH_ATTENTION)}")
    for field, value in (("seeds", None), ("schedule", "constant")):  # an epoch more must not change those before
        if config[field] != value:
            raise UsageError(f"config.{field}={config[field]} must be {value}: the run is continued after each epoch")
    return config, values.texts


def main(arguments: list[str]) -> None:
    if not {"-h", "--help"}.isdisjoint(arguments):
        print(__doc__)
        return
    try:
        config, texts = checked(arguments)
        devices.start()
        print("\n" + table(config, texts))
    except Refusal as refusal:
        sys.exit(f"error: {refusal}")


if __name__ == "__main__":
    main(sys.argv[1:])
