"""What a config may hold: a rule for every field, checked before data is read or anything is compiled."""

import difflib
import hashlib
import importlib
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from attn import positions
from attn.models.classifier import ClassifierConfig
from experiments.errors import UsageError

Config = Any  # an ml_collections.ConfigDict, whose fields have no static types
CORPORA = ("imdb", "verdicts")
MODELS = ("single_head", "multi_head", "transformer", "transformer_positional")  # the pages of configs/


class Rule(NamedTuple):
    """`text` completes the sentence "FIELD=VALUE must be …"."""

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


_SIZE = _integer(1, 65_536)
_FLAG = Rule("True or False", lambda x: type(x) is bool)

RULES = {
    "seed": _integer(0, 2**31 - 1),
    "epochs": _integer(1, 100_000),
    "batch_size": _integer(1, 1_000_000),
    "learning_rate": _number(1e-12, 1e3, "a number from 1e-12 to 1000"),
    "steps_per_call": _optional(_integer(1, 1_000_000)),
    "data.name": _choice(*CORPORA),
    "data.dir": _optional(Rule("a path", lambda x: type(x) is str and bool(x) and "\0" not in x)),
    "data.vocabulary_size": _optional(_integer(4, 65_536)),
    "data.max_length": _optional(_SIZE),
    "model.body": _choice("attention", "multi_head", "transformer"),
    "model.num_classes": _integer(2, 65_536),
    "model.embed_dim": _SIZE,
    "model.num_layers": _SIZE,
    "model.num_heads": _SIZE,
    "model.key_dim": _SIZE,
    "model.output_dims": Rule("a tuple of sizes", lambda x: type(x) is tuple and bool(x) and all(map(_SIZE.holds, x))),
    "model.feedforward_dim": _SIZE,
    "model.positions": _choice(*positions.KINDS),
    "model.dropout_rate": _number(0, 1, "a number from 0 to 1, 1 left out"),
    "model.mask_padding": _FLAG,
}


def rule_of(field: str) -> Rule:
    """The rule of a field such as "model.num_heads"; UsageError with the nearest name where there is none."""
    if field in RULES:
        return RULES[field]
    near = difflib.get_close_matches(field, RULES, n=1, cutoff=0.25)  # so that lr finds learning_rate
    hint = f"; did you mean config.{near[0]}?" if near else ""
    raise UsageError(f"config.{field} is no field of the config{hint}")


def check(config: Config) -> None:
    """Raises UsageError with the first field that breaks its rule, its value and the rule."""
    if not isinstance(config, ConfigDict):
        raise UsageError(f"get_config() gave {type(config).__name__}: it must give a ConfigDict")
    fields = flatten(config)
    for field, value in fields.items():
        if not rule_of(field).holds(value):
            raise UsageError(f"config.{field}={value!r} must be {RULES[field].text}")
    missing = RULES.keys() - fields.keys()
    if missing:
        raise UsageError(f"config.{min(missing)} is missing: it must be {RULES[min(missing)].text}")
    model_config(config, vocabulary_size=4, max_length=1)


def model_config(config: Config, vocabulary_size: int, max_length: int) -> ClassifierConfig:
    """The model of a config, on a corpus of these sizes; UsageError where its fields do not go together."""
    try:
        return ClassifierConfig(**config.model.to_dict(), vocabulary_size=vocabulary_size, max_length=max_length)
    except ValueError as error:
        raise UsageError(f"config.model: {error}") from None


def load_page(name: str, data: str) -> Config:
    """The config of `configs/NAME.py` for a corpus by name."""
    return importlib.import_module(f"configs.{name}").get_config(data)


def flatten(config: Config) -> dict[str, Any]:
    """The fields by their dotted names."""
    nested = config.to_dict()
    flat = {}
    for name, value in nested.items():
        flat.update({f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value})
    return flat


def fingerprint(config: Config) -> str:
    """12 hex digits that are equal where the numbers of two runs must be: all fields but those of place and speed."""
    fields = {k: v for k, v in flatten(config).items() if k not in ("data.dir", "steps_per_call")}
    kind = fields.pop("model.positions")  # was a flag when the ledger's first runs were made: their hashes still hold
    fields["model.learned_positions"] = {"none": False, "learned": True}.get(kind, kind)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
