"""The files of a run: how a folder is claimed for writing, and how a run is read back."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import settings
from experiments.data.corpus import SENTIMENTS, Corpus
from experiments.errors import DataError, UsageError, first_line, warn
from experiments.fields import PAIRS
from experiments.settings import Config
from experiments.storage import checkpoints, files, lock, provenance
from experiments.storage.names import BOARD, CONFIG, METRICS, RESULT, WORDS
from experiments.training import build, divergence, position

_DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError)  # reading a damaged folder raises these


class Run(NamedTuple):
    """A trained model. `model.apply({"params": params}, tokens)` returns a classifier's logits for int32 tokens `[*B, T]`.

    A run of pairs has a model of `attn.models.seq2seq`, a `PairTokenizer` and no classes; `pair_predict` has what it decodes.
    """

    config: Config
    model: Any  # one of build.AnyModel
    params: Any
    tokenizer: Any  # one of build.AnyTokenizer
    classes: tuple[str, ...]  # the names of the labels, by the index of their logit
    corpus_sha256: str  # of the corpus that it was trained on


def check(workdir: Path, flag: str = "--workdir") -> None:
    """Checks that a folder can be written. Creates nothing. Raises UsageError otherwise. `flag` is the one that names it."""
    files.refuse_unwritable(flag, workdir)


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[lock.Held]:
    """Creates a run folder and holds its lock. If the block fails before it has written anything, the folder goes again.

    Raises:
      UsageError: The folder cannot be written.
      lock.Busy: Another process writes to it.
    """
    check(workdir)
    try:
        with files.no_leftovers(workdir), lock.hold(workdir) as held:
            yield held
    except PermissionError as error:
        raise UsageError(f"--workdir={workdir} cannot be written: {error.strerror}") from None


def refuse_other(workdir: Path, config: Config) -> None:
    """Refuses a folder that holds a run of another config. More epochs than the run has are no other config.

    Raises:
      UsageError: Names all fields that differ.
      DataError: The folder's config is damaged.
    """
    if not (workdir / CONFIG).exists():
        return
    _refuse(f"--workdir={workdir} holds a run", settings.flatten(read_config(workdir)), settings.flatten(config))


def refuse_other_checkpoint(workdir: Path, config: Config, meta: dict[str, Any]) -> None:
    """Refuses a checkpoint of another config. Raises UsageError as `refuse_other`."""
    _refuse(f"--workdir={workdir} holds a checkpoint", meta["config"], settings.flatten(config))


def _refuse(what: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    if differing := settings.differences(there, here, but=("epochs",)):
        raise UsageError(f"{what} of another config: {differing}; choose another folder")
    if there["epochs"] != here["epochs"] and here["schedule"] != "constant":
        raise UsageError(
            f"config.epochs={here['epochs']} must be {there['epochs']}: {what}, and the learning rates of "
            f"schedule={here['schedule']} depend on the epochs"
        )


def refuse_other_corpus(workdir: Path, config: Config, sha256: str, corpus: Corpus) -> None:
    """Refuses a corpus that is not the one with the SHA-256 on which a run was trained. Raises DataError."""
    if sha256 != corpus.sha256:
        raise DataError(f"--workdir={workdir} was trained on another version of the corpus {config.data.name}")


def open_new(workdir: Path, config: Config, tokenizer: build.AnyTokenizer) -> None:
    """Writes the config and the vocabulary, and removes how an earlier attempt has ended. Raises OSError."""
    for name in (RESULT, divergence.FILE):  # of fewer epochs, or of an attempt that goes on
        (workdir / name).unlink(missing_ok=True)
    files.write_json(workdir / CONFIG, config.to_dict())
    files.write_whole(workdir / WORDS, b"\n".join(tokenizer.words))


def load(workdir: str | Path, checkpoint: str = "last") -> Run:
    """Loads the classifier of a run, which may still be training.

    Args:
      workdir: The run folder.
      checkpoint: "last", or "best" for the parameters after the epoch with the highest validation accuracy. A damaged one is
        reported on stderr, and the one before it is used.

    Returns:
      The config, the model, the parameters and the tokenizer.

    Raises:
      UsageError: The folder holds no such checkpoint.
      DataError: A file of the run is missing or damaged.
    """
    workdir = Path(workdir)
    if not (workdir / CONFIG).exists():
        raise UsageError(f"--workdir={workdir} holds no run: {CONFIG} is missing")
    config = read_config(workdir)
    step, arrays, meta = checkpoints.read_newest(workdir, checkpoint)
    refuse_other_checkpoint(workdir, config, meta)
    _warn(workdir, checkpoint, step)
    try:
        words = tuple((workdir / WORDS).read_bytes().split(b"\n"))
        tokenizer = build.build_tokenizer(config.data, words, meta)
        if tokenizer.sha256 != meta["words_sha256"]:
            raise ValueError(f"{WORDS} has changed since the run wrote it")
        classes = _classes(config, meta)
        model = build.build_model(config, tokenizer, len(classes))
        with jax.enable_x64(False):  # Flax would ask for float64 parameters
            shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, tokenizer.max_length), jnp.int32))["params"]
        params = jax.tree.map(jnp.asarray, position.fitted(shapes, arrays["params"], "params"))
        return Run(config, model, params, tokenizer, classes, meta["corpus_sha256"])
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None


def _classes(config: Config, meta: dict[str, Any]) -> tuple[str, ...]:
    """Returns the names of the labels. The first runs did not keep them: theirs were always the same two."""
    if config.data.name in PAIRS:
        return ()
    wanted = config.model.num_classes
    if "classes" in meta or wanted in (None, len(SENTIMENTS)):
        return tuple(map(str, meta.get("classes", SENTIMENTS)))
    return tuple(map(str, range(wanted)))


def _warn(workdir: Path, checkpoint: str, step: int) -> None:
    """Says on stderr what is unusual about a checkpoint that is read."""
    if (workdir / divergence.FILE).exists():
        warn(f"the run in {workdir} has diverged: see {divergence.FILE}")
    if (
        checkpoint == "best"
        and (best := checkpoints.read_newest(workdir, "last").meta["best_step"]) is not None
        and step < best
    ):
        warn(f"the best checkpoint of {workdir} was that of step {best}: step {step} is used")


def read_config(workdir: Path) -> Config:
    """Returns the config with which a run was started, checked again. Raises DataError if it is damaged."""
    try:
        content = settings.with_later_fields(files.read_object(workdir / CONFIG))
        if "output_dims" in content["model"]:
            content["model"]["output_dims"] = tuple(content["model"]["output_dims"])  # JSON has no tuples
        config = ConfigDict(content)
        settings.check(config)
    except UsageError as error:
        raise _damaged(workdir, ValueError(f"{CONFIG}: {error}")) from None
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None
    return config


def discard(workdir: Path) -> None:
    """Removes what a run has written to its folder, and nothing else."""
    for name in (CONFIG, METRICS, RESULT, WORDS, divergence.FILE, provenance.RUNNING, provenance.ATTEMPTS):
        (workdir / name).unlink(missing_ok=True)
    for name in (checkpoints.FOLDER, BOARD):
        shutil.rmtree(workdir / name, ignore_errors=True)


def is_finished(workdir: Path, config: Config) -> bool:
    """Returns whether a folder holds a finished run of this config."""
    return (workdir / RESULT).exists() and settings.fingerprint(read_config(workdir)) == settings.fingerprint(config)


def read_result(workdir: Path) -> dict[str, Any]:
    """Returns the content of result.json. Raises DataError if it is damaged."""
    try:
        return files.read_object(workdir / RESULT)
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None


def read_rows(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, one per epoch. Raises DataError if they are damaged."""
    try:
        return files.read_lines(workdir / METRICS)
    except _DAMAGE as error:
        raise _damaged(workdir, error) from None


def _damaged(workdir: Path, error: Exception) -> DataError:
    reason = first_line(error)
    if isinstance(error, KeyError):
        reason = f"{reason} is missing"
    return DataError(f"--workdir={workdir} is damaged: {reason}")
