"""One attempt at a run: from its start, or from where an earlier attempt has stopped, to its end or to where it stops.

It is a generator, as in `fit`.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.data.corpus import Corpus
from experiments.errors import Refusal, first_line
from experiments.machine import processes
from experiments.machine.stopping import Signals, Stopped
from experiments.settings import Config
from experiments.storage import record, run_folder, saving
from experiments.storage.lock import Held
from experiments.training import result, steps
from experiments.training.divergence import FILE, Diverged
from experiments.training.fit import Fit
from experiments.training.init_from import from_another_run
from experiments.training.log_ratios import from_log_ratios
from experiments.training.programs import Request
from experiments.training.progress import Progress
from experiments.training.start import start

Attempt = Generator[Request, Any, dict[str, Any]]


class Shared(NamedTuple):
    """What the runs that are trained together share."""

    plan: steps.Plan
    corpus: Corpus
    signals: Signals
    label: str
    runs: int


def attempt(config: Config, workdir: Path, held: Held | None, shared: Shared, progress: Progress) -> Attempt:
    """Trains a run and writes its folder.

    Args:
      config: The config of the run.
      workdir: Its folder.
      held: The lock of the folder; None in a process that does not write.
      shared: What it shares with others.
      progress: What shows it.

    Returns:
      The content of result.json.

    Raises:
      Refusal, OSError: As `train.train`.
    """
    try:
        return (yield from _attempt(config, workdir, held, shared, progress))
    finally:
        progress.ended()


def _attempt(config: Config, workdir: Path, held: Held | None, shared: Shared, progress: Progress) -> Attempt:
    plan, corpus, signals = shared.plan, shared.corpus, shared.signals
    at = start(config, plan, corpus, workdir)
    if not at.step and config.init_from is not None:
        at = from_another_run(at, plan, corpus, config.init_from, progress)
    if not at.step and config.data.ngrams is not None and config.model.initial_values == "log_ratios":
        at = from_log_ratios(at, plan, corpus)
    processes.by_writer(lambda: saving.check_room(workdir, at, shared.runs))
    processes.by_writer(lambda: run_folder.open_new(workdir, config, corpus.tokenizer))
    fit = Fit(config, plan, corpus, at, signals)
    if fit.finished():
        progress.say(f"Training has ended after step {at.step}; the test split is evaluated.")
    elif at.step:
        progress.say(f"Continues after step {at.step}, in epoch {len(at.rows) + 1} of {config.epochs}.")
    with record.opened(held, config, corpus, at, shared.runs) as written:
        try:
            yield from fit.run(written, progress)
            written.save(fit.position)
            content = yield from result.result_of(plan, corpus, fit.position, shared.label)
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
