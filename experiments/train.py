"""Trains and evaluates one run."""

import math
import platform
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from experiments import build, report, run_folder, settings, steps
from experiments.data.corpus import Corpus, Split
from experiments.errors import DataError, Refusal
from experiments.metrics import Metrics, Progress
from experiments.settings import Config

_CALL_SECONDS = 1.0  # duration of a compiled call: long against the cost of a call, short enough for a progress line


class Diverged(Refusal):
    """A loss is not finite."""

    exit_code = 3


def train(config: Config, workdir: Path, label: str, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a classifier, evaluates it on the test split once, and writes the run folder.

    Args:
      config: The config of the run, checked here.
      workdir: The run folder. It must not hold a finished run.
      label: The name of the run in its figure and in `result.json`: the page of `configs/`.
      progress: What shows the epochs; None prints a line for each.

    Returns:
      The content of `result.json`.

    Raises:
      UsageError: The config breaks a rule, or the folder cannot be used.
      DataError: The corpus cannot be read.
      Diverged: A loss is not finite.
    """
    settings.check(config)
    run_folder.check(workdir)
    corpus = build.build_corpus(config)
    model = build.build_model(config, corpus.tokenizer)
    plan = build.build_plan(config, model)
    run_folder.start(workdir, config)  # after the corpus is read, so that a missing corpus leaves no folder
    state, rows, seconds = _fit(config, plan, corpus, workdir, progress or Progress(config.epochs))

    evaluate = _Evaluation(plan, corpus.test())
    test_loss, test_accuracy = evaluate(state.params)
    _check_finite(config, "test", test_loss=test_loss)
    run_folder.save(workdir, state.params, corpus.tokenizer)
    report.draw_curves(workdir, {label: [rows]})
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    result = {
        "label": label,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "best_epoch": best["epoch"],  # the highest val_accuracy
        "best_val_loss": best["val_loss"],
        "best_val_accuracy": best["val_accuracy"],
        "final_val_loss": rows[-1]["val_loss"],
        "final_val_accuracy": rows[-1]["val_accuracy"],
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "train_seconds": seconds,
        "compile_seconds": sum(row["compile_seconds"] for row in rows) + evaluate.compile_seconds,
        "vocabulary_size": corpus.tokenizer.vocabulary_size,
        "max_length": corpus.tokenizer.max_length,
        "attention": build.attention_of(model),
        "trimmed_to": list(plan.lengths),  # a microbatch is trimmed to the shortest of these lengths that holds its reviews
        **provenance(),
    }
    run_folder.write_json(workdir / run_folder.RESULT, result)
    return result


def _fit(
    config: Config, plan: steps.Plan, corpus: Corpus, workdir: Path, progress: Progress
) -> tuple[steps.State, list[dict[str, Any]], float]:
    """Trains all epochs. Returns the state, the rows, and the seconds of training without compilation and evaluation."""
    state = plan.replicate(steps.initial_state(plan, jax.random.key(config.seed)))
    examples = plan.examples(corpus.train.tokens, corpus.train.labels)
    progress.start()
    epoch_calls, evaluate = Epochs(config, plan, state, examples), _Evaluation(plan, corpus.validation)
    rows, train_seconds, started = [], 0.0, time.monotonic()
    with Metrics(workdir) as metrics:
        for epoch in range(1, config.epochs + 1):
            state, sums, seconds = epoch_calls.run(state, epoch, progress)
            train_seconds += seconds
            loss, accuracy = sums.means()
            val_loss, val_accuracy = evaluate(state.params)
            rows.append(
                {
                    "epoch": epoch,
                    "step": int(state.step),
                    "train_loss": loss,
                    "train_accuracy": accuracy,
                    "val_loss": val_loss,
                    "val_accuracy": val_accuracy,
                    "examples_per_second": int(sums.examples) / seconds,
                    "real_tokens_per_second": int(sums.tokens) / seconds,
                    "step_milliseconds": 1e3 * seconds / epoch_calls.steps,
                    "compile_seconds": epoch_calls.compile_seconds + evaluate.compile_seconds if epoch == 1 else 0.0,
                }
            )
            _check_finite(config, f"epoch {epoch}", loss=loss, val_loss=val_loss)
            metrics.write(rows[-1])
            progress.epoch(rows[-1], (time.monotonic() - started) / epoch * (config.epochs - epoch))
    return state, rows, train_seconds


def _check_finite(config: Config, where: str, **losses: float) -> None:
    if not all(map(math.isfinite, losses.values())):
        shown = ", ".join(f"{name} {loss}" for name, loss in losses.items())
        raise Diverged(f"{where}: {shown} at config.learning_rate={config.learning_rate}")


class Epochs:
    """Runs epochs of the compiled training program, several steps per call.

    Args:
      config: The config of the run. With `steps_per_call=None` the number of steps is adapted to calls of about a second.
      plan: What the program is compiled for.
      state: A state of the run, for its shapes.
      examples: The training split.

    Attributes:
      steps: The number of steps in an epoch.
      compile_seconds: The duration of the compilation.
    """

    def __init__(self, config: Config, plan: steps.Plan, state: steps.State, examples: steps.Examples):
        self._plan, self._examples = plan, examples
        self._adapt = config.steps_per_call is None
        self._steps_per_call = 1 if self._adapt else config.steps_per_call
        order = self._order(state, 1)
        self.steps = order.shape[0]
        arguments = (plan, state, self._zero(), examples, order, 0, 1)
        self._train, self.compile_seconds = _compile(steps.train, *arguments)

    def run(self, state: steps.State, epoch: int, progress: Progress) -> tuple[steps.State, steps.Sums, float]:
        """Runs one epoch. Returns the state, the sums over its examples, and the seconds of its steps."""
        order, sums, first, seconds = self._order(state, epoch), self._zero(), 0, 0.0
        jax.block_until_ready(order)
        while first < self.steps:
            last = min(first + self._steps_per_call, self.steps)
            started = time.monotonic()
            state, sums = jax.block_until_ready(self._train(state, sums, self._examples, order, first, last))
            call_seconds = time.monotonic() - started
            seconds += call_seconds
            if self._adapt:
                self._steps_per_call = max(1, round(_CALL_SECONDS * (last - first) / call_seconds))
            first = last
            if seconds >= _CALL_SECONDS or last == self.steps:
                progress.estimate(seconds / last * self.steps)  # the first call alone is too short to tell
            progress.update(epoch, last, self.steps, sums, seconds)
        return state, sums, seconds

    def _order(self, state: steps.State, epoch: int) -> jax.Array:
        return self._plan.replicate(steps.epoch_order(self._plan, state.rng, epoch - 1, self._examples.labels.size))

    def _zero(self) -> steps.Sums:
        return self._plan.replicate(steps.Sums.zero())


class _Evaluation:
    """Computes mean loss and accuracy on a split. Compiled at the first call, so that training starts earlier."""

    def __init__(self, plan: steps.Plan, split: Split):
        self._plan, self._examples = plan, plan.examples(split.tokens, split.labels)
        self._compiled, self.compile_seconds = None, 0.0

    def __call__(self, params: Any) -> tuple[float, float]:
        if self._compiled is None:
            self._compiled, self.compile_seconds = _compile(steps.evaluate, self._plan, params, self._examples)
        return self._compiled(params, self._examples).means()


def evaluate(workdir: Path, split: str) -> dict[str, float]:
    """Evaluates a finished run.

    Args:
      workdir: The run folder.
      split: "validation" or "test".

    Returns:
      The loss and the accuracy, under the names that they have in the metrics of the run.

    Raises:
      UsageError: The folder holds no finished run.
      DataError: The run is damaged, or the corpus has changed since the training.
    """
    run = run_folder.load(workdir)
    corpus = build.build_corpus(run.config)
    if corpus.tokenizer != run.tokenizer:
        raise DataError(f"--workdir={workdir} was trained on another version of the corpus {run.config.data.name}")
    plan = build.build_plan(run.config, run.model)
    params = plan.replicate(run.params)
    loss, accuracy = _Evaluation(plan, corpus.test() if split == "test" else corpus.validation)(params)
    prefix = "test" if split == "test" else "val"
    return {f"{prefix}_loss": loss, f"{prefix}_accuracy": accuracy}


def _compile(program: Any, *arguments: Any) -> tuple[Callable, float]:
    started = time.monotonic()
    compiled = program.lower(*arguments).compile()
    return compiled, time.monotonic() - started


def provenance() -> dict[str, Any]:
    """Returns the versions, the device and the commit of a run ("+" if files had changed, None outside of git)."""
    device = jax.local_devices()[0]
    kind = platform.processor() or platform.machine() if device.platform == "cpu" else device.device_kind
    return {
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "device": f"{device.platform} × {jax.local_device_count()}, {kind}",
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        root = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
