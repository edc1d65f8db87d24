"""From a config to the things that a run is made of."""

from pathlib import Path

import jax
import jax.numpy as jnp

import attn
from attn.kernels import selection
from attn.models.classifier import Classifier
from experiments import settings, steps
from experiments.data.corpus import Corpus
from experiments.data.tokenizer import Tokenizer
from experiments.settings import Config


def build_corpus(config: Config) -> Corpus:
    """The corpus of `config.data`, prepared first where it is not there."""
    if config.data.name == "verdicts":
        from experiments.data import verdicts

        return verdicts.load(config.data.vocabulary_size, config.data.max_length)
    from experiments.data import imdb_arrays

    data_dir = None if config.data.dir is None else Path(config.data.dir)
    return imdb_arrays.load(config.data.vocabulary_size, config.data.max_length, data_dir)


def build_model(config: Config, tokenizer: Tokenizer) -> Classifier:
    """The model of `config.model`, with the vocabulary and the length of the tokenizer."""
    return Classifier(settings.model_config(config, tokenizer.vocabulary_size, tokenizer.max_length))


def attention_of(model: Classifier) -> list[str]:
    """What the attention of each layer runs as in a train step, in order: the first line of its `attn.explain`."""
    tokens, rng = jax.ShapeDtypeStruct((model.config.max_length,), jnp.int32), jax.random.key(0)
    with selection.record_selections() as choices:
        jax.eval_shape(lambda x: model.init({"params": rng, "dropout": rng}, x, deterministic=False), tokens)
    return [str(explanation).partition("\n")[0] for explanation in choices]


def build_plan(config: Config, model: Classifier) -> steps.Plan:
    """What the programs of a run are compiled for."""
    return steps.make_plan(model, attn.keras_adam(config.learning_rate), config.batch_size)
