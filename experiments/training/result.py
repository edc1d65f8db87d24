"""The end of a run: the test split, the figure, and result.json."""

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import jax

from experiments.data.corpus import Corpus
from experiments.storage import files, provenance, run_folder
from experiments.training import build, judgement, steps
from experiments.training.position import Position, best_row
from experiments.training.programs import Evaluate, Evaluated, Judge

Result = TypeVar("Result")


Evaluation = Generator[Evaluate | Judge, Any, Result]


def result_of(plan: steps.Plan, corpus: Corpus, at: Position, label: str) -> Evaluation[dict[str, Any]]:
    """Evaluates the last parameters and those of the best epoch on the test split.

    Args:
      plan: The plan of the run.
      corpus: Its corpus, whose test split is read here.
      at: Its last position.
      label: The name of the run.

    Returns:
      The content of result.json. The test metrics of the best epoch are None if its parameters were damaged.
    """
    rows, best = at.rows, best_row(at.rows)
    last = yield _test(at, at.state.params)
    best_loss, best_accuracy = yield from _best_test(plan, at, last)
    judged = yield Judge((len(at.rows), 0), "test", at.state.params)
    return {
        "label": label,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(at.state.params)),
        "epochs": len(rows),
        "best_epoch": best["epoch"],  # the highest val_accuracy
        "best_val_loss": best["val_loss"],
        "best_val_accuracy": best["val_accuracy"],
        "final_val_loss": rows[-1]["val_loss"],
        "final_val_accuracy": rows[-1]["val_accuracy"],
        "test_loss": last.loss,
        "test_accuracy": last.accuracy,
        "best_test_loss": best_loss,
        "best_test_accuracy": best_accuracy,
        "test": judgement.of_split(judged, corpus.classes),  # of the last parameters
        "train_seconds": 1e-3 * sum(row["step_milliseconds"] for row in rows) * rows[0]["step"],
        "compile_seconds": last.compile_seconds + sum(row["compile_seconds"] for row in rows),
        "corpus_sha256": corpus.sha256,
        **corpus.tokenizer.sizes,
        "attention": build.attention_of(plan.model, corpus.target_length),
        "trimmed_to": list(plan.lengths),  # a microbatch is trimmed to the shortest of these lengths that holds its reviews
        **provenance.software_and_device(),
    }


def _test(at: Position, params: Any) -> Evaluate:
    return Evaluate((len(at.rows), 0), "test", params)


def _best_test(plan: steps.Plan, at: Position, last: Evaluated) -> Evaluation[tuple[float, float] | tuple[None, None]]:
    if at.best is None or at.best.params is None:
        return None, None
    found = last if at.best.step == at.step else (yield _test(at, plan.replicate(at.best.params)))
    return found.loss, found.accuracy


def write(workdir: Path, at: Position, result: dict[str, Any]) -> None:
    """Draws the curves and writes result.json, which is the last file of a run."""
    from experiments.report import confusion_figure, curves  # they import matplotlib, for which the first step need not wait

    curves.draw_curves(workdir, {result["label"]: [at.rows]})
    of_classes = result["test"]
    if of_classes.get("confusion") and len(of_classes["recall"]) > 2:  # four numbers need no picture
        confusion_figure.draw(workdir, list(of_classes["recall"]), of_classes["confusion"])
    files.write_json(workdir / run_folder.RESULT, result)
