"""Trains several runs in one process, which share the corpus, the compiled programs and the start-up."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import settings
from experiments.errors import DataError, UsageError, warn
from experiments.machine import devices, processes
from experiments.machine.stopping import Signals
from experiments.settings import Config
from experiments.storage import checkpoints, run_folder
from experiments.storage.lock import Held
from experiments.training import build, steps
from experiments.training.attempt import Shared, attempt
from experiments.training.drive import drive
from experiments.training.programs import Programs
from experiments.training.progress import Progress

# The fields in which runs may differ that are trained together.
BATCHED = ("seed", "learning_rate", "weight_decay", "label_smoothing", "model.dropout_rate")
Outcome = dict[str, Any] | Exception


class Member(NamedTuple):
    """One of the runs."""

    config: Config
    workdir: Path


def train(members: Sequence[Member], label: str, progress: Progress) -> list[Outcome]:
    """Trains runs whose configs differ in nothing but the fields of BATCHED. Each is what `train.train` would make of it.

    Args:
      members: The runs, in folders of their own. Their dropout rates are all 0 or all positive.
      label: As in `train.train`.
      progress: What shows them; `progress.of(index)` shows one.

    Returns:
      The content of `result.json` of each, or the error that ended it: a run that fails does not stop the others.

    Raises:
      UsageError: A config breaks a rule, the configs differ in another field, or a folder cannot be used; none has started.
      Busy: Another process writes to one of the folders.
      DataError: The corpus cannot be read.
      Stopped: There was a signal before the first step.
    """
    for member in members:
        settings.check(member.config)
    if others := unbatched(settings.flatten(member.config) for member in members):
        raise UsageError(f"config.{others[0]} must be the same in all runs of one program")
    if not processes.is_writer():
        progress = Progress(members[0].config.epochs, io.StringIO())
    with Signals() as signals, contextlib.ExitStack() as claims:
        outcomes: list[Any] = [None] * len(members)
        locks: dict[int, Held | None] = {}
        for index, (config, workdir) in enumerate(members):
            held, finished = processes.by_writer(lambda: _claim(claims, workdir, config)) or (None, None)  # noqa: B023
            if processes.from_writer([finished is not None]) == [True]:
                progress.of(index).say(f"The run in {workdir} is finished: there is nothing to train.")
                outcomes[index] = finished or run_folder.read_result(workdir)
            else:
                locks[index] = held
        if not locks:
            return outcomes
        first = members[next(iter(locks))].config
        corpus = build.build_corpus(first)
        model = build.build_model(first, corpus.tokenizer, len(corpus.classes))
        plan = build.build_plan(first, model, len(corpus.train.labels))
        progress.say(f"Trains on {devices.described(plan.devices)}.")
        shared = Shared(plan, corpus, signals, label, len(locks))
        attempts = {i: attempt(*members[i], locks[i], shared, progress.of(i)) for i in locks}
        programs = Programs(plan, corpus, signals, _parallel(plan, first, len(locks)))
        ended = drive(attempts, programs, signals)
        return [ended[index] if index in ended else outcomes[index] for index in range(len(members))]


def unbatched(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the fields in which the flat fields of configs differ although runs of one program must not."""
    first, *rest = map(program_of, configs)
    return [field for field, value in first.items() if any(other[field] != value for other in rest)]


def program_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the configs of one program have in common: all fields but those of BATCHED, and whether there is dropout."""
    fixed = {field: value for field, value in config.items() if field not in BATCHED}
    return fixed | {"model.dropout_rate": config["model.dropout_rate"] > 0}


def _parallel(plan: steps.Plan, config: Config, runs: int) -> int:
    """Returns how many runs a call trains in parallel: a CPU's cores are busy with one already."""
    if config.runs_per_call is None and plan.devices[0].platform == "cpu":
        return 1
    return min(config.runs_per_call or runs, runs)


def _claim(claims: contextlib.ExitStack, workdir: Path, config: Config) -> tuple[Held, dict[str, Any] | None]:
    """Claims the run folder. Returns its lock, and the result of a finished run of the config; a damaged one is made again."""
    held = claims.enter_context(run_folder.claim(workdir))
    run_folder.refuse_other(workdir, config)
    try:
        result = run_folder.read_result(workdir) if run_folder.is_finished(workdir, config) else None
    except DataError as error:
        warn(f"{error}; it is made again")
        return held, None
    if result is not None and config.data.name not in settings.CORPORA:  # a file may have changed under the same name
        meta = checkpoints.read_newest(workdir, "last").meta
        run_folder.refuse_other_corpus(workdir, config, meta["corpus_sha256"], build.build_corpus(config))
    return held, result
