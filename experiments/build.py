"""From a config to the things that a run is made of."""

from ml_collections import ConfigDict

import attn
from attn.models.classifier import Classifier
from experiments import settings, steps
from experiments.data.corpus import Corpus
from experiments.data.tokenizer import Tokenizer


def build_corpus(config: ConfigDict) -> Corpus:
    """The corpus of `config.data`, prepared first where it is not there."""
    if config.data.name == "verdicts":
        from experiments.data import verdicts

        return verdicts.load(config.data.vocabulary_size, config.data.max_length)
    from experiments.data import imdb_arrays

    return imdb_arrays.load(config.data.vocabulary_size, config.data.max_length, config.data.dir)


def build_model(config: ConfigDict, tokenizer: Tokenizer) -> Classifier:
    """The model of `config.model`, with the vocabulary and the length of the tokenizer."""
    return Classifier(settings.model_config(config, tokenizer.vocabulary_size, tokenizer.max_length))


def build_programs(config: ConfigDict, model: Classifier) -> steps.Programs:
    """The compiled programs of a run."""
    return steps.build_programs(model, attn.keras_adam(config.learning_rate), config.batch_size)
