"""Loss and accuracy of a run on disk."""

from pathlib import Path

from experiments.machine.stopping import Signals
from experiments.storage import run_folder
from experiments.training import build
from experiments.training.programs import Evaluate, Evaluated, Programs


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
    [found] = Programs(plan, corpus, Signals()).answer([Evaluate((0, 0), split, plan.replicate(run.params))])
    assert isinstance(found, Evaluated)
    prefix = "test" if split == "test" else "val"
    return {f"{prefix}_loss": found.loss, f"{prefix}_accuracy": found.accuracy}
