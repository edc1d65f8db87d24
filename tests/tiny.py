"""A run of seconds: a slice of the embedded corpus, a small model, and the command line that trains it in-process."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import optax
import pytest

import attn
from experiments.command_line import commands
from experiments.data import generated
from experiments.data.corpus import Corpus, Split
from experiments.report import curves
from experiments.training import build, steps

ROOT = Path(__file__).parent.parent
SIZES = {"train": 90, "validation": 31, "test": 33}  # pairwise different, and no multiple of the batch size
BATCH_SIZE, EPOCHS = 20, 2
PAGE = f"--config={ROOT / 'configs' / 'transformer.py'}:verdicts"  # with dropout, so that the order of the keys shows
FLAGS = (
    PAGE,
    f"--config.epochs={EPOCHS}",
    f"--config.batch_size={BATCH_SIZE}",
    "--config.model.embed_dim=5",
    "--config.model.key_dim=3",
    "--config.model.feedforward_dim=7",
)
SCALARS = steps.Scalars(learning_rate=0.01, weight_decay=0.0, dropout_rate=0.1, label_smoothing=0.0)
# What a run leaves and that differs from run to run.
TIMES = ("examples_per_second", "real_tokens_per_second", "step_milliseconds", "compile_seconds", "train_seconds", "git_commit")


def keras_adam(scalars: steps.Scalars) -> optax.GradientTransformation:
    """The optimizer of a plan."""
    return attn.keras_adam(scalars.learning_rate)


@functools.cache
def _verdicts() -> Corpus:
    return generated.load("verdicts", None, None)


def corpus(on_test: Callable[[], None] = lambda: None) -> Corpus:
    """The first reviews of each split; `on_test` is called whenever somebody reads the test split."""

    def test() -> Split:
        on_test()
        return _first(_verdicts().test(), "test")

    whole = _verdicts()
    return dataclasses.replace(
        whole, train=_first(whole.train, "train"), validation=_first(whole.validation, "validation"), test=test
    )


def _first(split: Split, name: str) -> Split:
    return Split(split.tokens[: SIZES[name]], split.labels[: SIZES[name]])


def train(
    monkeypatch: pytest.MonkeyPatch,
    workdir: Path,
    *flags: str,
    on_test: Callable[[], None] = lambda: None,
    code: int = 0,
    drawn: bool = False,
) -> None:
    """`train` on the tiny corpus, through the command line. Its curves, which take most of a second, are drawn if asked for."""
    monkeypatch.setattr(build, "build_corpus", lambda config: corpus(on_test))
    if not drawn:
        monkeypatch.setattr(curves, "draw_curves", lambda *_: None)
    with fast_compilation():
        assert commands.main(["train", *FLAGS, f"--workdir={workdir}", *flags]) == code


@contextlib.contextmanager
def fast_compilation() -> Iterator[None]:
    """XLA leaves out most optimizations: for programs that run so few times that compiling them takes longer."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def tree(folder: Path) -> dict[str, bytes]:
    """The files under a folder and what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
