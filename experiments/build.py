"""Builds the parts of a run from its config: the corpus, the model and the plan of the training."""

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
    """Returns the corpus of `config.data`, and prepares it first if necessary."""
    if config.data.name == "verdicts":
        from experiments.data import verdicts

        return verdicts.load(config.data.vocabulary_size, config.data.max_length)
    from experiments.data import imdb_arrays

    data_dir = None if config.data.dir is None else Path(config.data.dir)
    return imdb_arrays.load(config.data.vocabulary_size, config.data.max_length, data_dir)


def build_model(config: Config, tokenizer: Tokenizer) -> Classifier:
    """Returns the model of `config.model`, with the vocabulary size and the length of the tokenizer."""
    return Classifier(settings.model_config(config, tokenizer.vocabulary_size, tokenizer.max_length))


def attention_of(model: Classifier) -> list[str]:
    """Returns, for each layer in order, the implementation of attention in a train step: the first line of `attn.explain`."""
    tokens, rng = jax.ShapeDtypeStruct((model.config.max_length,), jnp.int32), jax.random.key(0)
    with selection.record_selections() as choices:
        jax.eval_shape(lambda x: model.init({"params": rng, "dropout": rng}, x, deterministic=False), tokens)
    return [str(explanation).partition("\n")[0] for explanation in choices]


def build_plan(config: Config, model: Classifier) -> steps.Plan:
    """Returns the plan for which the programs of a run are compiled."""
    return steps.make_plan(model, attn.keras_adam(config.learning_rate), config.batch_size)
