"""Builds the parts of a run from its config: the corpus, the model and the plan of the training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import attn
from attn.kernels import selection
from attn.models.classifier import Classifier
from attn.models.ngram import NgramClassifier, NgramConfig
from attn.models.seq2seq import RecurrentSeq2Seq, TransformerSeq2Seq
from attn.optimizers import relative_adam
from experiments import fields, settings
from experiments.data.corpus import Corpus
from experiments.data.ngram_tokenizer import NgramSettings, NgramTokenizer
from experiments.data.pair_tokenizer import PairTokenizer
from experiments.data.tokenizer import Tokenizer, WordRules
from experiments.errors import UsageError
from experiments.machine import devices
from experiments.settings import Config
from experiments.training import steps

AnyTokenizer = Tokenizer | NgramTokenizer | PairTokenizer
AnyModel = steps.AnyModel


def build_corpus(config: Config) -> Corpus:
    """Returns the corpus of `config.data`, and prepares it first if necessary.

    Raises:
      UsageError: A field of `config.data` does not fit the data, or `config.model.num_classes` is not that of its classes.
      DataError: The data is missing, or breaks a rule.
    """
    if config.data.name in fields.PAIRS:
        from experiments.data import pairs

        return pairs.load(config.data)
    corpus = _read_corpus(config.data)
    wanted, found = config.model.num_classes, len(corpus.classes)
    if wanted not in (None, found):
        raise UsageError(f"config.model.num_classes={wanted} must be {found}, the classes of {config.data.name}, or None")
    return corpus


def _read_corpus(data: Config) -> Corpus:
    rules = rules_of(data)
    data_dir = None if data.dir is None else Path(data.dir)
    if data.ngrams is not None:
        from experiments.data import imdb_arrays, ngram_arrays

        share = data.validation_share
        validation = imdb_arrays.VALIDATION_SIZE if share is None else max(1, round(share * imdb_arrays.TRAIN_SIZE))
        settings_of = ngram_settings(data)
        return ngram_arrays.load(data.name, settings_of, data.max_length, validation, data_dir, rules, data.keep)
    if data.name in fields.GENERATED:
        from experiments.data import generated

        return generated.load(data.name, data.vocabulary_size, data.max_length, rules=rules, keep=data.keep)
    if data.name == "imdb":
        from experiments.data import imdb_arrays

        return imdb_arrays.load(data.vocabulary_size, data.max_length, data_dir, rules=rules, keep=data.keep)
    from experiments.data import text_arrays

    return text_arrays.load(data, rules, data_dir)


def rules_of(data: Config) -> WordRules:
    """Returns what a word is, by the fields of `config.data`."""
    return WordRules(data.lowercase, data.filters, data.marks)


def ngram_settings(data: Config) -> NgramSettings:
    """Returns which n-grams are features, by the fields of `config.data`."""
    return NgramSettings(data.ngrams, data.ngram_choice, data.ngram_features, data.ngram_context)


def build_tokenizer(data: Config, words: tuple[bytes, ...], meta: Mapping[str, Any]) -> AnyTokenizer:
    """Returns the tokenizer of a run, from the fields of `config.data`, its words, and the sizes that its checkpoint keeps."""
    size, length = meta["vocabulary_size"], meta["max_length"]
    if data.name in fields.PAIRS:
        return PairTokenizer(words, size, length, meta["target_length"], data.unit, data.lowercase, data.keep)
    if data.ngrams is not None:
        return NgramTokenizer(tuple(filter(None, words)), ngram_settings(data), length, rules_of(data), data.keep)
    return Tokenizer(words, size, length, rules_of(data), data.keep)


def build_model(config: Config, tokenizer: AnyTokenizer, num_classes: int | None = None) -> AnyModel:
    """Returns the model of `config.model`, with the vocabulary size and the length of the tokenizer.

    `num_classes` is the number of classes of the corpus; None: its name tells them. A corpus of pairs has none.
    """
    return model_of(config, tokenizer.vocabulary_size, tokenizer.max_length, num_classes)


def model_of(config: Config, vocabulary_size: int, max_length: int, num_classes: int | None = None) -> AnyModel:
    """Returns the model of `config.model` for the sizes of a corpus. Raises UsageError if the fields contradict each other."""
    if config.model.body in fields.SEQ2SEQ:
        kind: Any = RecurrentSeq2Seq if config.model.body == "recurrent_seq2seq" else TransformerSeq2Seq
        return kind(settings.seq2seq_config(config, vocabulary_size, max_length))
    found = settings.model_config(config, vocabulary_size, max_length, num_classes)
    return NgramClassifier(found) if isinstance(found, NgramConfig) else Classifier(found)


def text_lengths(model: AnyModel, target_length: int | None) -> list[int]:
    """Returns the longest length of each text that a model reads: one, or those of source and target."""
    return [model.config.max_length] if target_length is None else [model.config.max_length, target_length]


def attention_of(model: AnyModel, target_length: int | None = None) -> list[str]:
    """Returns, for each layer in order, the implementation of attention in a train step: the first line of `attn.explain`.

    `target_length` is that of a model of pairs.
    """
    lengths, rng = text_lengths(model, target_length), jax.random.key(0)
    tokens = [jax.ShapeDtypeStruct((length,), jnp.int32) for length in lengths]
    with selection.record_selections() as choices:
        jax.eval_shape(lambda *x: model.init({"params": rng, "dropout": rng}, *x, deterministic=False), *tokens)
    return [str(explanation).partition("\n")[0] for explanation in choices]


def build_plan(config: Config, model: AnyModel, examples: int) -> steps.Plan:
    """Returns the plan for which the programs of a run are compiled, with so many examples to train on."""
    steps_in_all = config.epochs * -(-examples // config.batch_size)
    return steps.make_plan(model, build_optimizer(config, steps_in_all), config.batch_size, devices.chosen(config.devices))


def scalars_of(config: Config) -> steps.Scalars:
    """Returns the numbers of a config that a program takes as arguments."""
    return steps.Scalars(config.learning_rate, config.weight_decay, config.model.dropout_rate, config.label_smoothing)


def build_optimizer(config: Config, steps_in_all: int) -> steps.Optimizer:
    """Returns a function from the scalars of a run of so many steps to its optimizer."""
    factor, name, momentum = _schedule(config, steps_in_all), config.optimizer, config.momentum or None

    def optimizer(scalars: steps.Scalars) -> optax.GradientTransformation:
        rate = scalars.learning_rate if factor is None else _scaled(scalars.learning_rate, factor)
        if name == "adamw":
            return optax.adamw(rate, weight_decay=scalars.weight_decay)
        if name == "sgd":
            return optax.sgd(rate, momentum=momentum)
        return relative_adam(rate) if name == "relative_adam" else attn.keras_adam(rate)

    return optimizer


def _scaled(rate: Any, factor: optax.Schedule) -> optax.Schedule:
    return lambda count: rate * factor(count)


def _schedule(config: Config, steps_in_all: int) -> optax.Schedule | None:
    """Returns the factor of the learning rate at each step, or None if it is 1 at all of them.

    The step after the warm-up is the first one with the full rate.
    """
    if config.schedule == "cosine":
        if config.warmup_steps >= steps_in_all:
            raise UsageError(f"config.warmup_steps={config.warmup_steps} must be less than the {steps_in_all} steps of the run")
        return optax.warmup_cosine_decay_schedule(0.0, 1.0, config.warmup_steps, steps_in_all)
    if config.warmup_steps:
        return optax.linear_schedule(0.0, 1.0, config.warmup_steps)
    return None
