"""What a run leaves behind, and how it is read back."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from attn.models.classifier import Classifier
from experiments import build, settings
from experiments.data.tokenizer import Tokenizer
from experiments.errors import DataError, UsageError
from experiments.settings import Config

CONFIG, METRICS, RESULT, BOARD = "config.json", "metrics.jsonl", "result.json", "tensorboard"
_PARAMS, _WORDS = "checkpoint", "vocabulary.txt"


class Run(NamedTuple):
    """A trained classifier: `model.apply({"params": params}, tokenizer.pad([...]))` gives its logits."""

    config: Config
    model: Classifier
    params: Any
    tokenizer: Tokenizer


def start(workdir: Path, config: Config) -> None:
    """Makes the folder and writes the resolved config. A finished run is never written over."""
    if (workdir / RESULT).exists():
        raise UsageError(f"--workdir={workdir} holds a finished run: choose another folder, or remove that one")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        for leftover in (workdir / METRICS, *(workdir / BOARD).glob("events.*")):
            leftover.unlink(missing_ok=True)  # of a run that was cut off: it starts again
        write_json(workdir / CONFIG, config.to_dict())
    except OSError as error:
        raise UsageError(f"--workdir={workdir} cannot be written: {error.strerror}") from None


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all; NaN is no JSON."""
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """The file has all of the text or is as it was."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def save(workdir: Path, params: Any, tokenizer: Tokenizer) -> None:
    """The parameters (orbax), and the words by rank, so that the folder needs no data to predict."""
    (workdir / _WORDS).write_bytes(b"\n".join(tokenizer.words))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((workdir / _PARAMS).absolute(), params, force=True)


def load(workdir: str | Path) -> Run:
    """The classifier of a finished run.

    Raises UsageError where the folder holds no finished run, DataError where what it holds is damaged.
    """
    workdir = Path(workdir)
    if not (workdir / RESULT).exists():
        raise UsageError(f"--workdir={workdir} holds no finished run: {RESULT} is not there")
    try:
        config = read_config(workdir)
        sizes = json.loads((workdir / RESULT).read_text())
        words = tuple((workdir / _WORDS).read_bytes().split(b"\n"))
        tokenizer = Tokenizer(words, sizes["vocabulary_size"], sizes["max_length"])
        model = build.build_model(config, tokenizer)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, tokenizer.max_length), jnp.int32))
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore((workdir / _PARAMS).absolute(), shapes["params"])
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"--workdir={workdir} is damaged: {reason}") from None
    return Run(config, model, params, tokenizer)


def read_config(workdir: Path) -> Config:
    """The config that a run was started with, checked again."""
    content = json.loads((workdir / CONFIG).read_text())
    content["model"]["output_dims"] = tuple(content["model"]["output_dims"])  # JSON has no tuples
    config = ConfigDict(content)
    settings.check(config)
    return config


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, one an epoch."""
    return [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
