"""The pages of configs/ and their defaults, and the commands that make a run from them."""

import functools
import importlib
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.fields import CLASSES, FREE, PAGES, PAIRS, flattened

_CORPORA = tuple(CLASSES)
_OF_PAIRS = {"recurrent_seq2seq": "seq2seq_rnn", "transformer_seq2seq": "seq2seq_transformer"}  # their pages by body


@functools.cache
def _defaults(page: str, corpus: str) -> dict[str, Any]:
    return flattened(importlib.import_module(f"configs.{page}").get_config(corpus).to_dict())


def fields(body: Any) -> Sequence[str]:
    """Returns the names of all fields of a config with a body, in the order of the pages."""
    page = _OF_PAIRS.get(body) if isinstance(body, str) else None
    return tuple(_defaults(page, PAIRS[0]) if page else _defaults(PAGES[0], _CORPORA[0]))


def same(one: Any, other: Any) -> bool:
    """Returns whether two values of a field are the same; JSON has no tuples, and 1 is not True."""
    return json.dumps(one) == json.dumps(other)


def differing(config: Mapping[str, Any], page: str, corpus: str) -> dict[str, Any]:
    """Returns the fields that change results and differ from the defaults of a page for a corpus, without the seed."""
    defaults = _defaults(page, corpus)
    left_out = (*FREE, "seed")
    return {name: value for name, value in config.items() if name not in left_out and not same(value, defaults[name])}


def nearest(config: Mapping[str, Any], label: str | None) -> tuple[str, str]:
    """Returns the page with a label, else that of the same kind of model with the fewest differences; and the corpus."""
    if config["model.body"] in _OF_PAIRS:
        return _OF_PAIRS[config["model.body"]], config["data.name"] if config["data.name"] in PAIRS else PAIRS[0]
    corpus = config["data.name"] if config["data.name"] in _CORPORA else _CORPORA[0]
    if label in PAGES:
        return label, corpus

    def distance(page: str) -> tuple[bool, int]:
        fields = differing(config, page, corpus)
        return "model.body" in fields, len(fields)

    return min(PAGES, key=distance), corpus


def command(config: Mapping[str, Any], seeds: Sequence[int], label: str, folder: str) -> str:
    """Returns a line for a shell that trains a group.

    Args:
      config: The fields of its runs.
      seeds: Their seeds.
      label: The label of its runs.
      folder: The name of the folder below runs/, which needs no quotes.
    """
    page, corpus = nearest(config, label)
    source = f"configs/{page}.py" + (f":{corpus}" if corpus != _CORPORA[0] else "")
    flags = [f"--config.{name}={_typed(value)}" for name, value in differing(config, page, corpus).items()]
    words = ["python", "-m", "experiments", "train", f"--config={source}"]
    if len(seeds) == 1:
        words += [f"--workdir=runs/{folder}/seed_{seeds[0]}", f"--config.seed={seeds[0]}", *flags]
        return " ".join(map(quoted, words))
    train = " ".join(map(quoted, [*words, *flags]))
    return f"for seed in {' '.join(map(str, seeds))}; do {train} --workdir=runs/{folder}/seed_$seed --config.seed=$seed; done"


def _typed(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list | tuple) else str(value)


def quoted(word: str) -> str:
    """Returns a word quoted for a shell; with characters that cannot be shown, in the form $'…' of bash and zsh."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(c if c.isprintable() and c not in "\\'" else _escaped(c) for c in word)
    return f"$'{escaped}'"


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogatepass"))
