"""The files of a run: how they are written, and how they are read back."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from ml_collections import ConfigDict

from attn.models.classifier import Classifier
from experiments import build, settings
from experiments.checksum import file_sha256
from experiments.data.tokenizer import Tokenizer
from experiments.errors import DataError, UsageError
from experiments.settings import Config

CONFIG, METRICS, RESULT, BOARD = "config.json", "metrics.jsonl", "result.json", "tensorboard"
_PARAMS, _WORDS, _MANIFEST = "checkpoint", "vocabulary.txt", "manifest.json"

_DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError)  # reading a damaged folder raises these


class Run(NamedTuple):
    """A trained classifier. `model.apply({"params": params}, tokens)` returns its logits for int32 tokens `[*B, T]`."""

    config: Config
    model: Classifier
    params: Any
    tokenizer: Tokenizer


def check(workdir: Path) -> None:
    """Checks that a run may be written to a folder. Creates nothing.

    Raises:
      UsageError: The folder cannot be written, or it holds a finished run, which is never overwritten.
    """
    path = workdir.absolute()
    try:
        if (path / RESULT).exists():
            raise UsageError(f"--workdir={workdir} holds a finished run: choose another folder, or remove that one")
        parent = next(folder for folder in (path, *path.parents) if folder.exists())
    except OSError as error:  # for example, a name that is too long
        raise UsageError(f"--workdir={workdir} cannot be written: {error.strerror}") from None
    if not parent.is_dir():
        raise UsageError(f"--workdir={workdir} cannot be written: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"--workdir={workdir} cannot be written: {parent} is read-only")


def start(workdir: Path, config: Config) -> None:
    """Creates the run folder and writes the config. Raises UsageError as `check` does."""
    check(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        for leftover in (workdir / METRICS, *(workdir / BOARD).glob("events.*")):
            leftover.unlink(missing_ok=True)  # of an interrupted run, which starts again
        write_json(workdir / CONFIG, config.to_dict())
    except OSError as error:
        raise UsageError(f"--workdir={workdir} cannot be written: {error.strerror}") from None


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, either completely or not at all. Raises ValueError for NaN, which JSON does not have."""
    write_whole(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a file either completely or not at all: after an error it is as it was."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def save(workdir: Path, params: Any, tokenizer: Tokenizer) -> None:
    """Saves the parameters with Orbax, and the vocabulary, so that predictions need no corpus."""
    (workdir / _WORDS).write_bytes(b"\n".join(tokenizer.words))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((workdir / _PARAMS).absolute(), params, force=True)
    except ValueError as error:  # Orbax raises this if the disk is full
        raise OSError(f"{workdir / _PARAMS} cannot be written: {str(error).splitlines()[0]}") from None
    files = [workdir / CONFIG, workdir / _WORDS, *(path for path in sorted((workdir / _PARAMS).rglob("*")) if path.is_file())]
    write_json(workdir / _MANIFEST, {path.relative_to(workdir).as_posix(): file_sha256(path) for path in files})


def load(workdir: str | Path) -> Run:
    """Loads the classifier of a finished run.

    Args:
      workdir: The run folder.

    Returns:
      The config, the model, the parameters and the tokenizer.

    Raises:
      UsageError: The folder holds no finished run.
      DataError: A file of the run is missing or damaged.
    """
    workdir = Path(workdir)
    if not (workdir / RESULT).exists():
        raise UsageError(f"--workdir={workdir} holds no finished run: {RESULT} is missing")
    config = read_config(workdir)
    try:
        for name, expected in _read_object(workdir / _MANIFEST).items():
            if file_sha256(workdir / name) != expected:  # Orbax itself restores a flipped bit silently
                raise ValueError(f"{name} has changed since the run wrote it")
        sizes = _read_object(workdir / RESULT)
        words = tuple((workdir / _WORDS).read_bytes().split(b"\n"))
        tokenizer = Tokenizer(words, sizes["vocabulary_size"], sizes["max_length"])
        model = build.build_model(config, tokenizer)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, tokenizer.max_length), jnp.int32))["params"]
        device = SingleDeviceSharding(jax.local_devices()[0])  # otherwise Orbax needs as many devices as the run had
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore((workdir / _PARAMS).absolute(), shapes)
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None
    return Run(config, model, params, tokenizer)


def read_config(workdir: Path) -> Config:
    """Returns the config with which a run was started, checked again. Raises DataError if it is damaged."""
    try:
        content = _read_object(workdir / CONFIG)
        content["model"]["output_dims"] = tuple(content["model"]["output_dims"])  # JSON has no tuples
        content["model"].setdefault("implementation", "auto")  # the first runs had no such field
        config = ConfigDict(content)
        settings.check(config)
    except UsageError as error:
        raise _damaged(workdir, ValueError(f"{CONFIG}: {error}")) from None
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None
    return config


def is_finished(workdir: Path, config: Config) -> bool:
    """Returns whether a folder holds a finished run of this config."""
    return (workdir / RESULT).exists() and settings.fingerprint(read_config(workdir)) == settings.fingerprint(config)


def read_result(workdir: Path) -> dict[str, Any]:
    """Returns the content of result.json. Raises DataError if it is damaged."""
    try:
        return _read_object(workdir / RESULT)
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, one per epoch. Raises DataError if they are damaged."""
    try:
        return [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return content


def _damaged(workdir: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, KeyError):
        reason = f"{reason} is missing"
    return DataError(f"--workdir={workdir} is damaged: {reason}")
