"""The workload that every contender trains on and evaluates, and the type of a contender."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from attn.models.classifier import ClassifierConfig
from experiments import settings

VOCABULARY = 10_000


class Sizes(NamedTuple):
    batch_size: int
    length: int  # tokens per review
    batches: int  # per turn


class Workload(NamedTuple):
    config: settings.Config  # of configs/NAME.py
    model: ClassifierConfig
    tokens: np.ndarray  # uint16 [batches · B, T], the dtype of the corpora
    labels: np.ndarray  # int8 [batches · B]


class Contender(NamedTuple):
    """One implementation of the model, ready to run.

    Attributes:
      parameters: the number of parameters.
      train: runs one train step per batch, and returns when they are done.
      evaluate: computes loss and accuracy over all batches, and returns when they are done.
    """

    parameters: int
    train: Callable[[], object]
    evaluate: Callable[[], object]


def make_workload(name: str, sizes: Sizes) -> Workload:
    """The config `configs/NAME.py` with random tokens. Nothing is masked, so the time does not depend on the data."""
    config = settings.load_page(name, "imdb")
    config.batch_size = sizes.batch_size
    rng = np.random.default_rng(0)
    examples = sizes.batches * sizes.batch_size
    tokens = rng.integers(1, VOCABULARY, (examples, sizes.length), np.uint16)
    model = settings.model_config(config, VOCABULARY, sizes.length)
    labels = rng.integers(0, model.num_classes, examples, np.int8)
    return Workload(config, model, tokens, labels)


def output_dim(config: ClassifierConfig, layer: int) -> int:
    return config.output_dims[layer] if config.body == "multi_head" else config.embed_dim
