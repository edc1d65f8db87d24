"""Trains one run, from its start or from where an earlier attempt has stopped, and finishes it."""

from pathlib import Path
from typing import Any

import jax

from experiments import (
    build,
    checkpoints,
    devices,
    divergence,
    files,
    position,
    provenance,
    report,
    run_folder,
    saving,
    settings,
    steps,
)
from experiments.data.corpus import Corpus
from experiments.divergence import Diverged
from experiments.errors import DataError, UsageError
from experiments.evaluation import Evaluation
from experiments.fit import Fit
from experiments.metrics import Metrics, Progress
from experiments.position import Position, best_row
from experiments.saving import Saver
from experiments.settings import Config
from experiments.stopping import Signals, Stopped


def train(config: Config, workdir: Path, label: str, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a classifier, evaluates it on the test split once, and writes the run folder.

    An unfinished run in the folder is continued from its last checkpoint, and the result has the bits of a run that was never
    stopped. A finished one is returned as it is, or continued if the config has more epochs.

    Args:
      config: The config of the run, checked here.
      workdir: The run folder.
      label: The name of the run in its figure and in `result.json`: the page of `configs/`.
      progress: What shows the epochs; None prints a line for each.

    Returns:
      The content of `result.json`.

    Raises:
      UsageError: The config breaks a rule, the folder cannot be used, or it holds a run of another config.
      DataError: The corpus cannot be read, or no checkpoint of the run is valid.
      Busy: Another process writes to the folder.
      Diverged: A loss or a gradient is not finite.
      Stopped: SIGTERM, SIGINT or SIGUSR1. The run is saved.
      Refusal: The disk has no room for the checkpoints.
      OSError: A file cannot be written.
    """
    settings.check(config)
    progress = progress or Progress(config.epochs)
    with Signals() as signals, run_folder.claim(workdir):
        run_folder.refuse_other(workdir, config)
        if run_folder.is_finished(workdir, config):
            progress.say(f"The run in {workdir} is finished: there is nothing to train.")
            return run_folder.read_result(workdir)
        corpus = build.build_corpus(config)
        model = build.build_model(config, corpus.tokenizer)
        plan = build.build_plan(config, model, len(corpus.train.labels))
        start = _start(config, plan, corpus, workdir)
        saving.check_room(workdir, start)
        progress.say(f"Trains on {devices.described(plan.devices)}.")
        if start.step:
            progress.say(f"Continues after step {start.step}, in epoch {len(start.rows) + 1} of {config.epochs}.")
        run_folder.open_new(workdir, config, corpus.tokenizer)
        fit = Fit(config, plan, corpus, start, signals)
        with provenance.attempt(workdir, start.step, corpus_sha256=corpus.sha256) as attempt:
            saver = Saver(workdir, config, corpus, attempt, start)
            try:
                _fit(config, fit, saver, workdir, progress)
                tests, compile_seconds = _test(plan, corpus, fit.position, signals)
            except Stopped as stopped:
                saver.save(fit.position)
                raise stopped.saved(fit.position.step) from None
            return _finish(plan, corpus, fit.position, tests, compile_seconds, workdir, label)


def _start(config: Config, plan: steps.Plan, corpus: Corpus, workdir: Path) -> Position:
    """Returns the position of the newest valid checkpoint, or that of a new run. Damaged checkpoints are moved aside."""
    found = checkpoints.newest(workdir, "last", aside=True)
    if found is None:
        return position.initial(plan, config)
    _, arrays, meta = found
    run_folder.refuse_other_checkpoint(workdir, config, meta)
    if config.epochs < len(meta["rows"]):
        raise UsageError(f"config.epochs={config.epochs} must be at least {len(meta['rows'])}: so many are done in {workdir}")
    if meta["corpus_sha256"] != corpus.sha256:
        raise DataError(f"--workdir={workdir} was trained on another version of the corpus {config.data.name}")
    best = None if meta["best_step"] is None else _best_params(workdir, meta["best_step"])
    return position.restored(plan, config, arrays, meta, best)


def _best_params(workdir: Path, step: int) -> Any:
    try:
        return checkpoints.read(workdir, "best", step).arrays["params"]
    except DataError as error:
        checkpoints.set_aside(workdir, "best", step, str(error), "a better epoch will replace it")
        return None


def _fit(config: Config, fit: Fit, saver: Saver, workdir: Path, progress: Progress) -> None:
    """Trains to the end of the run, and saves it there."""
    with Metrics(workdir, fit.position.rows, fit.position.times) as metrics:
        try:
            fit.run(saver, metrics, progress)
        except Diverged as error:
            divergence.write(workdir, error)
            raise Diverged(
                f"{error}, at config.learning_rate={config.learning_rate}; {divergence.FILE} says more", error.found
            ) from None
    saver.save(fit.position)


def _test(plan: steps.Plan, corpus: Corpus, at: Position, signals: Signals) -> tuple[dict[str, float | None], float]:
    """Returns loss and accuracy on the test split, of the last parameters and of the best epoch's; and the compile seconds."""
    evaluate = Evaluation(plan, corpus.test(), signals)
    loss, accuracy = evaluate(at.state.params)
    best: tuple[float | None, float | None] = (None, None)
    if at.best and at.best.params is not None:
        best = (loss, accuracy) if at.best.step == at.step else evaluate(plan.replicate(at.best.params))
    return {
        "test_loss": loss,
        "test_accuracy": accuracy,
        "best_test_loss": best[0],
        "best_test_accuracy": best[1],
    }, evaluate.compile_seconds


def _finish(
    plan: steps.Plan, corpus: Corpus, at: Position, tests: dict, compile_seconds: float, workdir: Path, label: str
) -> dict[str, Any]:
    """Draws the curves and writes result.json, which is the last file."""
    rows, best = at.rows, best_row(at.rows)
    report.draw_curves(workdir, {label: [rows]})
    result = {
        "label": label,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(at.state.params)),
        "epochs": len(rows),
        "best_epoch": best["epoch"],  # the highest val_accuracy
        "best_val_loss": best["val_loss"],
        "best_val_accuracy": best["val_accuracy"],
        "final_val_loss": rows[-1]["val_loss"],
        "final_val_accuracy": rows[-1]["val_accuracy"],
        **tests,
        "train_seconds": sum(1e-3 * row["step_milliseconds"] * _steps_of(rows, index) for index, row in enumerate(rows)),
        "compile_seconds": compile_seconds + sum(row["compile_seconds"] for row in rows),
        "vocabulary_size": corpus.tokenizer.vocabulary_size,
        "max_length": corpus.tokenizer.max_length,
        "attention": build.attention_of(plan.model),
        "trimmed_to": list(plan.lengths),  # a microbatch is trimmed to the shortest of these lengths that holds its reviews
        **provenance.software_and_device(),
    }
    files.write_json(workdir / run_folder.RESULT, result)
    return result


def _steps_of(rows: tuple[dict[str, Any], ...], index: int) -> int:
    return rows[index]["step"] - (rows[index - 1]["step"] if index else 0)
