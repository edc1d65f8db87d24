"""Loss and accuracy on a split: while a run trains, and of a run on disk."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.data.corpus import Split
from experiments.machine.stopping import Signals
from experiments.storage import run_folder
from experiments.training import build, steps


class Evaluation:
    """Computes mean loss and accuracy on a split. Compiled at the first call, so that training starts earlier.

    Args:
      plan: What the program is compiled for.
      split: The examples.
      signals: A signal ends an evaluation at once.

    Attributes:
      compile_seconds: The duration of the compilation, 0 before it.
    """

    def __init__(self, plan: steps.Plan, split: Split, signals: Signals):
        self._plan, self._batches, self._signals = plan, plan.split(split.tokens, split.labels), signals
        self._compiled, self.compile_seconds = None, 0.0

    def __call__(self, params: Any) -> tuple[float, float]:
        return self._signals.abandonable(self._means, params)

    def _means(self, params: Any) -> tuple[float, float]:
        if self._compiled is None:
            self._compiled, self.compile_seconds = compiled(steps.evaluate, self._plan, params, self._batches)
        return self._compiled(params, self._batches).means()


def compiled(program: Any, *arguments: Any) -> tuple[Callable, float]:
    """Returns a program that is compiled for these arguments, and the seconds that it took."""
    started = time.monotonic()
    result = program.lower(*arguments).compile()
    return result, time.monotonic() - started


def evaluate(workdir: Path, split: str, checkpoint: str = "last") -> dict[str, float]:
    """Evaluates a run, which may still be training.

    Args:
      workdir: The run folder.
      split: "validation" or "test".
      checkpoint: "last" or "best"; see `run_folder.load`.

    Returns:
      The loss and the accuracy, under the names that they have in the metrics of the run.

    Raises:
      UsageError: The folder holds no such checkpoint.
      DataError: The run is damaged, or the corpus has changed since the training.
    """
    run = run_folder.load(workdir, checkpoint)
    corpus = build.build_corpus(run.config)
    run_folder.refuse_other_corpus(workdir, run.config, run.corpus_sha256, corpus)
    plan = build.build_plan(run.config, run.model, len(corpus.train.labels))
    loss, accuracy = Evaluation(plan, corpus.test() if split == "test" else corpus.validation, Signals())(
        plan.replicate(run.params)
    )
    prefix = "test" if split == "test" else "val"
    return {f"{prefix}_loss": loss, f"{prefix}_accuracy": accuracy}
