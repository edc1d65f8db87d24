"""Loss, accuracy and the measures by label of a run on disk."""

from pathlib import Path
from typing import Any

from experiments.machine.stopping import Signals
from experiments.storage import run_folder
from experiments.training import build, judgement
from experiments.training.programs import Evaluate, Evaluated, Judge, Programs


def evaluate(workdir: Path, split: str, checkpoint: str = "last") -> dict[str, Any]:
    """Evaluates a run, which may still be training.

    Args:
      workdir: The run folder.
      split: "validation" or "test".
      checkpoint: "last" or "best"; see `run_folder.load`.

    Returns:
      `val_loss` and `val_accuracy`, as the metrics of the run have them, or `test_loss` and `test_accuracy`; and what
      `judgement.of_split` has beside the accuracy.

    Raises:
      UsageError: The folder holds no such checkpoint.
      DataError: The run is damaged, or the corpus has changed since the training.
    """
    run = run_folder.load(workdir, checkpoint)
    corpus = build.build_corpus(run.config)
    run_folder.refuse_other_corpus(workdir, run.config, run.corpus_sha256, corpus)
    plan = build.build_plan(run.config, run.model, len(corpus.train.labels))
    programs, params = Programs(plan, corpus, Signals()), plan.replicate(run.params)
    [found] = programs.answer([Evaluate((0, 0), split, params)])
    [judged] = programs.answer([Judge((0, 0), split, params)])
    assert isinstance(found, Evaluated)
    assert isinstance(judged, judgement.Judged)
    prefix = "test" if split == "test" else "val"
    measures = judgement.of_split(judged, corpus.classes)
    measures.pop("accuracy", None)  # that of `found`, to the last bit
    return {f"{prefix}_loss": found.loss, f"{prefix}_accuracy": found.accuracy} | measures
