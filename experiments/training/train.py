"""Trains one run, from its start or from where an earlier attempt has stopped, and finishes it."""

import contextlib
import io
from pathlib import Path
from typing import Any

import jax

from experiments import settings
from experiments.errors import DataError, Refusal, first_line, warn
from experiments.machine import devices, processes
from experiments.machine.stopping import Signals, Stopped
from experiments.settings import Config
from experiments.storage import record, run_folder, saving
from experiments.storage.lock import Held
from experiments.training import build, result
from experiments.training.divergence import FILE, Diverged
from experiments.training.fit import Fit
from experiments.training.init_from import from_another_run
from experiments.training.metrics import Progress
from experiments.training.start import start


def train(config: Config, workdir: Path, label: str, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a classifier, evaluates it on the test split once, and writes the run folder.

    An unfinished run in the folder is continued from its last checkpoint, and the result has the bits of a run that was never
    stopped. A finished one is returned as it is, or continued if the config has more epochs. Several processes may train one
    run: each of them calls this, and one writes.

    Args:
      config: The config of the run, checked here.
      workdir: The run folder, which all processes must see.
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
    if not processes.is_writer():
        progress = Progress(config.epochs, io.StringIO())
    with Signals() as signals, contextlib.ExitStack() as claims:
        held, finished = processes.by_writer(lambda: _claim(claims, workdir, config)) or (None, None)
        if processes.from_writer([finished is not None]) == [True]:
            progress.say(f"The run in {workdir} is finished: there is nothing to train.")
            return finished or run_folder.read_result(workdir)
        corpus = build.build_corpus(config)
        model = build.build_model(config, corpus.tokenizer)
        plan = build.build_plan(config, model, len(corpus.train.labels))
        at = start(config, plan, corpus, workdir)
        progress.say(f"Trains on {devices.described(plan.devices)}.")
        if not at.step and config.init_from is not None:
            at = from_another_run(at, plan, corpus, config.init_from, progress)
        processes.by_writer(lambda: saving.check_room(workdir, at))
        processes.by_writer(lambda: run_folder.open_new(workdir, config, corpus.tokenizer))
        fit = Fit(config, plan, corpus, at, signals)
        if fit.finished():
            progress.say(f"Training has ended after step {at.step}; the test split is evaluated.")
        elif at.step:
            progress.say(f"Continues after step {at.step}, in epoch {len(at.rows) + 1} of {config.epochs}.")
        with record.opened(held, config, corpus, at) as written:
            try:
                fit.run(written, progress)
                written.save(fit.position)
                content = result.result_of(plan, corpus, fit.position, signals, label)
            except Stopped as stopped:
                written.save(fit.position)
                raise stopped.saved(fit.position.step) from None
            except jax.errors.JaxRuntimeError as error:
                raise _told(error, config) from error
            except Diverged as error:
                written.diverged(error)
                raise error.at(f", at config.learning_rate={config.learning_rate}; {FILE} says more") from None
            processes.by_writer(lambda: result.write(workdir, fit.position, content))
            return content


def _told(error: Exception, config: Config) -> Exception:
    """Returns what the user is told of an error of the devices, or the error itself, which is then one of ours."""
    reason = first_line(error)
    if "RESOURCE_EXHAUSTED" in reason:
        return Refusal(
            f"out of memory at config.batch_size={config.batch_size}: a smaller one needs less (see train --dry_run); "
            f"the run is saved up to its last checkpoint ({reason})"
        )
    if processes.count() > 1:
        return processes.Lost(error)
    return error


def _claim(claims: contextlib.ExitStack, workdir: Path, config: Config) -> tuple[Held, dict[str, Any] | None]:
    """Claims the run folder. Returns its lock, and the result of a finished run of the config; a damaged one is made again."""
    held = claims.enter_context(run_folder.claim(workdir))
    run_folder.refuse_other(workdir, config)
    try:
        return held, run_folder.read_result(workdir) if run_folder.is_finished(workdir, config) else None
    except DataError as error:
        warn(f"{error}; it is made again")
        return held, None
