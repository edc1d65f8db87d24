"""The end of a run: the test split, the figure, and result.json."""

from pathlib import Path
from typing import Any

import jax

from experiments.data.corpus import Corpus
from experiments.machine.stopping import Signals
from experiments.report import curves
from experiments.storage import files, provenance, run_folder
from experiments.training import build, steps
from experiments.training.evaluation import Evaluation
from experiments.training.position import Position, best_row


def result_of(plan: steps.Plan, corpus: Corpus, at: Position, signals: Signals, label: str) -> dict[str, Any]:
    """Evaluates the last parameters and those of the best epoch on the test split.

    Args:
      plan: The plan of the run.
      corpus: Its corpus, whose test split is read here.
      at: Its last position.
      signals: A signal ends the evaluation.
      label: The name of the run.

    Returns:
      The content of result.json. The test metrics of the best epoch are None if its parameters were damaged.
    """
    evaluate, rows, best = Evaluation(plan, corpus.test(), signals), at.rows, best_row(at.rows)
    test_loss, test_accuracy = evaluate(at.state.params)
    best_loss, best_accuracy = _best_test(plan, at, evaluate, (test_loss, test_accuracy))
    return {
        "label": label,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(at.state.params)),
        "epochs": len(rows),
        "best_epoch": best["epoch"],  # the highest val_accuracy
        "best_val_loss": best["val_loss"],
        "best_val_accuracy": best["val_accuracy"],
        "final_val_loss": rows[-1]["val_loss"],
        "final_val_accuracy": rows[-1]["val_accuracy"],
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "best_test_loss": best_loss,
        "best_test_accuracy": best_accuracy,
        "train_seconds": 1e-3 * sum(row["step_milliseconds"] for row in rows) * rows[0]["step"],
        "compile_seconds": evaluate.compile_seconds + sum(row["compile_seconds"] for row in rows),
        "vocabulary_size": corpus.tokenizer.vocabulary_size,
        "max_length": corpus.tokenizer.max_length,
        "attention": build.attention_of(plan.model),
        "trimmed_to": list(plan.lengths),  # a microbatch is trimmed to the shortest of these lengths that holds its reviews
        **provenance.software_and_device(),
    }


def _best_test(
    plan: steps.Plan, at: Position, evaluate: Evaluation, last: tuple[float, float]
) -> tuple[float, float] | tuple[None, None]:
    if at.best is None or at.best.params is None:
        return None, None
    return last if at.best.step == at.step else evaluate(plan.replicate(at.best.params))


def write(workdir: Path, at: Position, result: dict[str, Any]) -> None:
    """Draws the curves and writes result.json, which is the last file of a run."""
    curves.draw_curves(workdir, {result["label"]: [at.rows]})
    files.write_json(workdir / run_folder.RESULT, result)
