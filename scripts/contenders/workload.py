"""What every contender trains and evaluates, and what a contender is."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from attn.models.classifier import ClassifierConfig
from experiments import settings

VOCABULARY = 10_000


class Sizes(NamedTuple):
    batch_size: int
    length: int  # tokens of a review
    batches: int  # a turn


class Workload(NamedTuple):
    config: settings.Config  # the page of the lab notebook
    model: ClassifierConfig
    tokens: np.ndarray  # uint16 [batches · B, T], as the corpora hold them
    labels: np.ndarray  # int8 [batches · B]


class Contender(NamedTuple):
    """A model that is ready: its size, and a turn of each kind, which returns when it is done."""

    parameters: int
    train: Callable[[], object]  # a step a batch
    evaluate: Callable[[], object]  # loss and accuracy over all batches


def make_workload(name: str, sizes: Sizes) -> Workload:
    """The page `configs/NAME.py` on random tokens: nothing is masked, so a step takes as long on any data."""
    config = settings.load_page(name, "imdb")
    config.batch_size = sizes.batch_size
    rng = np.random.default_rng(0)
    examples = sizes.batches * sizes.batch_size
    tokens = rng.integers(1, VOCABULARY, (examples, sizes.length), np.uint16)
    labels = rng.integers(0, config.model.num_classes, examples, np.int8)
    return Workload(config, settings.model_config(config, VOCABULARY, sizes.length), tokens, labels)


def output_dim(config: ClassifierConfig, layer: int) -> int:
    return config.output_dims[layer] if config.body == "multi_head" else config.embed_dim
