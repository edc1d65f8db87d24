"""The names of the config's fields that need a word, for what must not wait for JAX. `settings` has the rules of all fields."""

from typing import Any

from experiments.data.kinds import KINDS

MODELS = ("single_head", "multi_head", "transformer", "transformer_positional")  # the pages of the blog's models
PAGES = (*MODELS, "cnn", "rnn")  # those of all models
# A run may go on with other values of these.
FREE = ("data.dir", "devices", "steps_per_call", "runs_per_call", "checkpoint_every")
LATER = {  # fields that the first runs did not have, with the values that all of those had
    "seeds": None,
    "patience": None,
    "init_from": None,
    "optimizer": "keras_adam",
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "label_smoothing": 0.0,
    "devices": None,
    "runs_per_call": None,
    "checkpoint_every": None,
    "data.path": None,
    "data.text": None,
    "data.label": None,
    "data.encoding": None,
    "data.validation_share": None,
    "data.test_share": None,
    "data.split_seed": 0,
    "data.lowercase": True,
    "data.filters": None,
    "data.keep": "last",
    "data.marks": "",
    "data.ngrams": None,
    "data.ngram_features": 65_536,
    "data.ngram_choice": "frequency",
    "data.ngram_context": 0,
    "model.logits": "tied",
    "model.initial_values": "zeros",
    "data.unit": "word",
    "model.kernel_size": 5,
    "model.cell": "gru",
    "model.implementation": "auto",
    "model.dtype": "float32",
}
GROUPS = ("data", "model")
PAIRS = tuple(name for name, kind in KINDS.items() if kind.pairs)  # the names of data whose targets are texts
SEQ2SEQ = {  # the fields of config.model of the bodies that learn them; all other bodies classify, and share theirs
    "recurrent_seq2seq": (
        *("body", "embed_dim", "hidden_dim", "encoder_cell", "bidirectional", "score", "dropout_rate", "implementation"),
    ),
    "transformer_seq2seq": (
        *("body", "embed_dim", "num_layers", "num_heads", "key_dim", "feedforward_dim", "positions", "dropout_rate"),
        "implementation",
    ),
}
CLASSES = {name: kind.classes for name, kind in KINDS.items() if kind.classes}  # of the corpora with pages of their own
GENERATED = tuple(name for name, kind in KINDS.items() if kind.grammar)


def with_later_fields(nested: dict[str, Any]) -> dict[str, Any]:
    """Returns the nested fields of a config that may be from before some fields existed, with all fields of today."""
    complete = {name: dict(value) if name in GROUPS else value for name, value in nested.items()}
    for field, value in LATER.items():
        group, _, name = field.rpartition(".")
        if group == "model" and complete["model"].get("body") in SEQ2SEQ:
            continue  # no run of these bodies is from before their fields
        (complete[group] if group else complete).setdefault(name, value)
    return complete


def flattened(nested: dict[str, Any]) -> dict[str, Any]:
    """Returns nested fields by their dotted names.

    `model.num_classes=None` means those of the data. Where the name of the data tells their number, that number is returned,
    which the first runs had in their configs.
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat.update({f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value})
    if "model.num_classes" in flat and flat["model.num_classes"] is None and isinstance(flat.get("data.name"), str):
        flat["model.num_classes"] = CLASSES.get(flat["data.name"])
    return flat
