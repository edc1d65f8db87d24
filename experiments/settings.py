"""The rules of a config, one for each field. They are checked before data is read or a program is compiled."""

import codecs
import dataclasses
import hashlib
import importlib
import json
import math
import re
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from attn import positions
from attn.kernels.selection import IMPLEMENTATIONS
from attn.models.bodies import CELLS
from attn.models.classifier import BODIES, ClassifierConfig
from attn.models.ngram import BODIES as NGRAM_BODIES
from attn.models.ngram import LOGITS as NGRAM_LOGITS
from attn.models.ngram import NgramConfig
from attn.models.seq2seq import RecurrentConfig, TransformerConfig, recurrent, transformer
from experiments import ranges
from experiments.data import kinds
from experiments.data.kinds import KINDS
from experiments.data.ngram_tokenizer import CHOICES
from experiments.data.ngrams import LONGEST
from experiments.data.pair_tokenizer import UNITS
from experiments.data.tokenizer import KEPT
from experiments.errors import UsageError
from experiments.fields import CLASSES, FREE, GROUPS, LATER, PAIRS, SEQ2SEQ, flattened
from experiments.fields import MODELS as MODELS
from experiments.fields import with_later_fields as with_later_fields

Config = Any  # an ml_collections.ConfigDict, whose fields have no static types
NGRAM_FIELDS = ("logits", "initial_values", "context_size")  # of the bodies over n-grams, which those over words ignore
CORPORA = tuple(CLASSES)  # those with pages of their own


class Rule(NamedTuple):
    """A condition on the value of a field. `text` completes the sentence "FIELD=VALUE must be …"."""

    text: str
    holds: Callable[[Any], bool]


def _integer(low: int, high: int) -> Rule:
    return Rule(f"an integer from {low} to {high}", lambda x: type(x) is int and low <= x <= high)


def _optional(rule: Rule) -> Rule:
    return Rule(rule.text + ", or None", lambda x: x is None or rule.holds(x))


def _number(low: float, high: float, text: str) -> Rule:
    def holds(x: Any) -> bool:
        return type(x) in (int, float) and math.isfinite(x) and low <= x < high

    return Rule(text, holds)


def _choice(*names: str) -> Rule:
    return Rule("one of " + ", ".join(names), lambda x: x in names)


def _is_path(x: Any) -> bool:
    return type(x) is str and bool(x) and "\0" not in x and not any("\ud800" <= c <= "\udfff" for c in x)


_SOURCE = re.compile(r"tfds:\w[\w./:+-]*|[^\W\d][\w.]*:\w[\w.-]*")


def _is_source(x: Any) -> bool:
    return type(x) is str and (x in KINDS or _SOURCE.fullmatch(x) is not None)


def _is_encoding(x: Any) -> bool:
    try:
        return type(x) is str and codecs.lookup(x)._is_text_encoding
    except (LookupError, ValueError):
        return False


_SIZE = _integer(1, 65_536)
_DTYPES = ("float32", "bfloat16")
_FLAG = Rule("True or False", lambda x: type(x) is bool)

_PATH = Rule("a path in UTF-8", _is_path)

_SEED = _integer(0, 2**31 - 1)


def _are_seeds(x: Any) -> bool:
    try:
        return type(x) is str and all(map(_SEED.holds, ranges.integers(x)))
    except ValueError:
        return False


_SHARE = _number(1e-6, 1, "a number above 0 and below 1")

RULES = {
    "seed": _SEED,
    "seeds": _optional(Rule(ranges.RULE, _are_seeds)),
    "epochs": _integer(1, 100_000),
    "batch_size": _integer(1, 1_000_000),
    "patience": _optional(_integer(1, 100_000)),
    "init_from": _optional(_PATH),
    "optimizer": _choice("keras_adam", "adamw", "sgd", "relative_adam"),
    "learning_rate": _number(1e-12, 1e3, "a number from 1e-12 to 1000"),
    "schedule": _choice("constant", "cosine"),
    "warmup_steps": _integer(0, 1_000_000_000),
    "weight_decay": _number(0, 1e3, "a number from 0 to 1000"),
    "momentum": _number(0, 1, "a number from 0 to 1, excluding 1"),
    "label_smoothing": _number(0, 1, "a number from 0 to 1, excluding 1"),
    "devices": _optional(_integer(1, 65_536)),
    "steps_per_call": _optional(_integer(1, 1_000_000)),
    "runs_per_call": _optional(_integer(1, 10_000)),
    "checkpoint_every": _optional(_integer(1, 1_000_000_000)),
    "data.name": Rule(
        "one of imdb, verdicts, agreement, csv, tfds:NAME and MODULE:NAME, a source that the module registers, or of "
        + ", ".join(PAIRS),
        _is_source,
    ),
    "data.dir": _optional(_PATH),
    "data.path": _optional(Rule("a path in UTF-8, or train=PATH,test=PATH", _is_path)),
    "data.text": _optional(Rule("the name of a column", _is_path)),
    "data.label": _optional(Rule("the name of a column", _is_path)),
    "data.encoding": _optional(Rule("an encoding of text that Python knows, such as utf-8 or latin-1", _is_encoding)),
    "data.validation_share": _optional(_SHARE),
    "data.test_share": _optional(_SHARE),
    "data.split_seed": _SEED,
    "data.vocabulary_size": _optional(_integer(4, 65_536)),
    "data.max_length": _optional(_SIZE),
    "data.keep": _choice(*KEPT),
    "data.unit": _choice(*UNITS),
    "data.lowercase": _FLAG,
    "data.filters": _optional(Rule("a text of ASCII characters", lambda x: type(x) is str and x.isascii())),
    "data.marks": Rule("a text of ASCII characters", lambda x: type(x) is str and x.isascii()),
    "data.ngrams": _optional(_integer(1, LONGEST)),
    "data.ngram_features": _integer(1, 2**24),
    "data.ngram_choice": _choice(*CHOICES),
    "data.ngram_context": _integer(0, 2**24),
    "model.body": _choice(*BODIES, *NGRAM_BODIES, *SEQ2SEQ),
    "model.num_classes": _optional(_integer(2, 65_536)),
    "model.embed_dim": _SIZE,
    "model.num_layers": _SIZE,
    "model.num_heads": _SIZE,
    "model.key_dim": _SIZE,
    "model.output_dims": Rule("a tuple of sizes", lambda x: type(x) is tuple and bool(x) and all(map(_SIZE.holds, x))),
    "model.feedforward_dim": _SIZE,
    "model.kernel_size": _SIZE,
    "model.cell": _choice(*CELLS),
    "model.positions": _choice(*positions.KINDS),
    "model.dropout_rate": _number(0, 1, "a number from 0 to 1, excluding 1"),
    "model.mask_padding": _FLAG,
    "model.logits": _choice(*NGRAM_LOGITS),
    "model.initial_values": _choice("zeros", "log_ratios"),
    "model.implementation": _choice("auto", *IMPLEMENTATIONS),
    "model.dtype": Rule(
        "float32 or bfloat16; the range of float16 is too small for a loss that is not scaled", _DTYPES.__contains__
    ),
}
SEQ2SEQ_RULES = RULES | {  # of the fields that only its bodies have, or for which they have fewer choices
    "model.positions": _choice(*transformer.POSITIONS),
    "model.hidden_dim": _SIZE,
    "model.encoder_cell": _choice(*recurrent.CELLS),
    "model.bidirectional": _FLAG,
    "model.score": _choice(*recurrent.SCORES),
}
ALIASES = {  # other common names, and a former one
    "lr": "learning_rate",
    "batch": "batch_size",
    "head_dim": "model.key_dim",
    "learned_positions": "model.positions",
}
_SIMILAR = 0.7  # difflib's ratio from which on one name is taken for a misspelling of another


def rule_of(field: str) -> Rule:
    """Returns the rule of a field such as "model.num_heads".

    Raises:
      UsageError: There is no such field. Names a field with a similar name, or else the fields that exist at that level.
    """
    if field not in SEQ2SEQ_RULES:
        raise UsageError(f"config.{field} is not a field of the config; {_suggestion(field)}")
    return RULES.get(field, SEQ2SEQ_RULES[field])


def rules_of(body: Any) -> dict[str, Rule]:
    """Returns the rules of all fields of a config whose `model.body` is this one."""
    if type(body) is not str or body not in SEQ2SEQ:
        return RULES
    own = {f"model.{name}" for name in SEQ2SEQ[body]}
    return {field: rule for field, rule in SEQ2SEQ_RULES.items() if not field.startswith("model.") or field in own}


def _suggestion(field: str) -> str:
    group = field.partition(".")[0]
    if near := near_field(field):
        return f"did you mean config.{near}?"
    if group in GROUPS:
        return f"the fields of config.{group} are {_listed(group)}"
    return f"the fields are {_listed('')}, and those of config.{' and config.'.join(GROUPS)}"


def near_field(field: str) -> str | None:
    """Returns the field whose name is most similar to an unknown one, or None if none is similar."""
    group, _, name = field.rpartition(".")
    if field in GROUPS or name in ALIASES:
        return ALIASES.get(name)
    typed = name if group in GROUPS else field  # a common group does not make two names similar
    ratios = [(SequenceMatcher(None, typed, known.rpartition(".")[2]).ratio(), known) for known in SEQ2SEQ_RULES]
    similarity, nearest = max(ratios)
    return nearest if similarity >= _SIMILAR else None


def _listed(group: str) -> str:
    """Returns the names of the fields of a group, or with "" of the fields outside of all groups."""
    return ", ".join(name for prefix, _, name in (field.rpartition(".") for field in SEQ2SEQ_RULES) if prefix == group)


def check(config: Config) -> None:
    """Checks every field of a config.

    Raises:
      UsageError: A field breaks its rule, is missing or is unknown, or fields contradict each other. Names the first of them.
    """
    if not isinstance(config, ConfigDict):
        raise UsageError(f"get_config() returned {type(config).__name__}: it must return a ConfigDict")
    fields = flatten(config)
    rules = rules_of(fields.get("model.body"))
    for field, value in fields.items():
        if field not in rules and field in SEQ2SEQ_RULES:
            raise UsageError(f"config.{field}={value!r} is not a field of model.body={fields.get('model.body')}")
        if not rules.get(field, rule_of(field)).holds(value):
            raise UsageError(f"config.{field}={value!r} must be {rules[field].text}")
    missing = rules.keys() - fields.keys()
    if missing:
        raise UsageError(f"config.{min(missing)} is missing: it must be {rules[min(missing)].text}")
    if fields["seeds"] is not None and fields["seed"] != 0:
        raise UsageError(f"config.seed={fields['seed']} and config.seeds={fields['seeds']} exclude each other")
    for field, optimizer in (("weight_decay", "adamw"), ("momentum", "sgd")):
        if fields[field] and fields["optimizer"] != optimizer:
            raise UsageError(
                f"config.{field}={fields[field]} must be 0 with optimizer={fields['optimizer']}: it is of {optimizer}"
            )
    _check_data(fields)
    if fields["model.body"] in SEQ2SEQ:
        seq2seq_config(config, vocabulary_size=5, max_length=1)
    else:
        model_config(config, vocabulary_size=4 + fields["data.ngram_context"], max_length=1, num_classes=2)


def _check_data(fields: dict[str, Any]) -> None:
    """Refuses fields of `config.data` that the named data would not honour. Raises UsageError."""
    name, body, kind = fields["data.name"], fields["model.body"], kinds.kind_of(fields["data.name"])
    if kind.pairs != (body in SEQ2SEQ):
        has, bodies = ("pairs of texts", ", ".join(SEQ2SEQ)) if kind.pairs else ("texts with labels", "one that classifies")
        raise UsageError(f"config.model.body={body} must be {bodies} with data.name={name}, which has {has}")
    _check_ngrams(fields)
    if kind.path is not None and fields["data.path"] is None:
        raise UsageError(f"config.data.path=None must be {kind.path} with data.name={name}")
    honoured = kind.honoured if fields["data.ngrams"] is None else kind.honoured + kind.with_ngrams
    for field in (f"data.{field}" for field in kinds.FIELDS if field not in honoured):
        if fields[field] != LATER[field]:
            raise UsageError(f"config.{field}={fields[field]!r} must be {LATER[field]!r} with data.name={name}")


def _check_ngrams(fields: dict[str, Any]) -> None:
    """Refuses n-grams for a model that reads words, and the reverse. Raises UsageError."""
    body, longest, name = fields["model.body"], fields["data.ngrams"], fields["data.name"]
    if (body in NGRAM_BODIES) != (longest is not None):
        rule = f"an integer from 1 to {LONGEST}" if longest is None else "None"
        raise UsageError(f"config.data.ngrams={longest} must be {rule} with model.body={body}")
    context, logits = fields["data.ngram_context"], fields.get("model.logits")
    if (context > 0) != (reads := body == "ngram_attention" and logits == "context"):
        rule = "above 0" if reads else "0"
        raise UsageError(f"config.data.ngram_context={context} must be {rule} with model.body={body} and model.logits={logits}")
    if longest is None:
        return
    if name not in CORPORA:
        raise UsageError(f"config.data.name={name} must be one of {', '.join(CORPORA)} with data.ngrams={longest}")
    for field, value in (("data.vocabulary_size", None), ("model.positions", "none"), ("model.dtype", "float32")):
        if fields[field] != value:
            raise UsageError(f"config.{field}={fields[field]!r} must be {value} with data.ngrams={longest}")
    if fields["data.ngram_choice"] == "hashed" and longest > 1 and fields["data.ngram_features"] < 2:
        raise UsageError(
            f"config.data.ngram_features=1 must be at least 2 with data.ngram_choice=hashed and data.ngrams={longest}"
        )


def model_config(config: Config, vocabulary_size: int, max_length: int, num_classes: int | None = None) -> Any:
    """Returns the model's config for a corpus: a `ClassifierConfig`, or a `NgramConfig` for a body over n-grams.

    Args:
      config: The config of the run.
      vocabulary_size: That of the corpus.
      max_length: The length of its texts.
      num_classes: The number of its classes, which is used where the config has none; None: the name of the data tells it.

    Raises:
      UsageError: The fields contradict each other.
    """
    fields = config.model.to_dict()
    if fields["num_classes"] is None:
        fields["num_classes"] = CLASSES[config.data.name] if num_classes is None else num_classes
    try:
        return _model_config(fields | {"context_size": config.data.ngram_context}, vocabulary_size, max_length)
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None


def _model_config(fields: dict[str, Any], vocabulary_size: int, max_length: int) -> ClassifierConfig | NgramConfig:
    sizes: dict[str, Any] = {"vocabulary_size": vocabulary_size, "max_length": max_length}
    if fields["body"] in NGRAM_BODIES:
        names = {field.name for field in dataclasses.fields(NgramConfig)}
        return NgramConfig(**{name: value for name, value in fields.items() if name in names}, **sizes)
    return ClassifierConfig(**{name: value for name, value in fields.items() if name not in NGRAM_FIELDS}, **sizes)


def seq2seq_config(config: Config, vocabulary_size: int, max_length: int) -> RecurrentConfig | TransformerConfig:
    """Returns the model's config for a corpus of pairs. Raises UsageError if the fields contradict each other."""
    kind = RecurrentConfig if config.model.body == "recurrent_seq2seq" else TransformerConfig
    try:
        return kind(**config.model.to_dict(), vocabulary_size=vocabulary_size, max_length=max_length)
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None


def load_page(name: str, data: str) -> Config:
    """Returns the config of `configs/NAME.py` for data, such as "imdb" or "verdicts"."""
    return importlib.import_module(f"configs.{name}").get_config(data)


def flatten(config: Config) -> dict[str, Any]:
    """Returns the fields of a config by their dotted names."""
    return flattened(config.to_dict())


def differences(there: dict[str, Any], here: dict[str, Any], but: tuple[str, ...] = ()) -> str:
    """Compares the flat fields of two configs.

    Args:
      there: Those of a run, which may be from before some fields existed.
      here: Those that are asked for.
      but: Fields that may differ, beside those of FREE.

    Returns:
      All differences that change results, such as "seed is 0 there and 1 here", or "".
    """
    there = {field: value for field, value in LATER.items() if field in here} | there
    asked = [field for field in SEQ2SEQ_RULES if field not in (*FREE, *but) and (field in here or field in there)]
    pairs = {field: (_plain(there.get(field)), _plain(here.get(field))) for field in asked}
    return ", ".join(f"{field} is {old!r} there and {new!r} here" for field, (old, new) in pairs.items() if old != new)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples


def fingerprint(config: Config) -> str:
    """Returns a hash of 12 hex digits of all fields that change the results: all but those of FREE."""
    return fingerprint_of(flatten(config))


def fingerprint_of(fields: dict[str, Any]) -> str:
    """Returns the same hash from the flat fields of a config, which may come from JSON."""
    fields = {k: v for k, v in fields.items() if k not in FREE}
    # The hashes of the ledger's first runs stay valid, in whose configs positions were a flag, and which had fewer fields.
    fields = {k: v for k, v in fields.items() if k not in LATER or v != LATER[k]}
    if "model.positions" in fields:
        kind = fields.pop("model.positions")
        fields["model.learned_positions"] = {"none": False, "learned": True}.get(kind, kind)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
