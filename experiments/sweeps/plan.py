"""What a sweep would be: its trials, and what they cost."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.cost import dry_run, train_step
from experiments.data.corpus import Corpus
from experiments.report import tables
from experiments.settings import Config
from experiments.sweeps import halving, states, status, sweep_folder, trials
from experiments.sweeps.halving import Rung
from experiments.sweeps.ledgers import Ledgers
from experiments.sweeps.sweep_folder import Sweep
from experiments.sweeps.trials import Trial
from experiments.training import build

_NO_COST = ("seed", "epochs", "patience", "learning_rate", "weight_decay", "label_smoothing", "model.dropout_rate")


class Cost(NamedTuple):
    """What a trial costs: its parameters, the steps of an epoch, and the FLOPs of a step, as `train --dry_run` counts them."""

    parameters: int
    steps: int
    flops: float


def costs(planned: Sequence[Trial], read: Callable[[Config], Corpus]) -> dict[str, Cost]:
    """Returns the cost of each trial, by its name. Trials with the same operations are counted once."""
    counted: dict[str, Cost] = {}
    found = {}
    for trial in planned:
        fields = {field: value for field, value in trial.fields.items() if field not in _NO_COST}
        key = json.dumps([fields, trial.fields["model.dropout_rate"] > 0], sort_keys=True)
        if key not in counted:
            counted[key] = _cost(trial.config(), read)
        found[trial.name] = counted[key]
    return found


def _cost(config: Config, read: Callable[[Config], Corpus]) -> Cost:
    corpus = read(config)
    config.devices = None  # those of the machine that plans may be fewer
    model = build.build_model(config, corpus.tokenizer, len(corpus.classes))
    plan = build.build_plan(config, model, len(corpus.train.labels))
    state = train_step.initial_state(plan, config)
    counted = train_step.of_plan(plan, state, corpus.target_length)
    return Cost(dry_run.size(state.params), -(-len(corpus.train.labels) // config.batch_size), counted.flops)


def describe(sweep: Sweep, sweepdir: Path | None, read: Callable[[Config], Corpus], eta: int | None, ledgers: Ledgers) -> str:
    """Returns what `sweep plan` prints.

    Args:
      sweep: The sweep.
      sweepdir: Its folder, which need not exist; None leaves out what is finished.
      read: Returns the corpus of a config.
      eta: That of successive halving, or None.
      ledgers: Those whose trials count as done.
    """
    cost, fields = costs(sweep.trials, read), trials.varied(sweep.trials)
    rungs = halving.rungs(sweep.trials, eta) if eta else []
    failed = sweep_folder.read_failures(sweepdir) if sweepdir else {}
    lines, left = [], []
    for trial in sweep.trials:
        state = states.of(sweepdir, trial, failed).kind if sweepdir else "waiting"
        if state == "waiting" and ledgers.have(trial):
            state = "in a ledger"
        elif state != "finished":
            left.append(trial)
        values = [str(trial.fields[field]) for field in fields]
        parameters, steps, each = cost[trial.name]
        work = dry_run.scaled(each * steps * trial.epochs, "FLOP")
        lines.append([trial.name, *values, f"{parameters:,}", f"{steps * trial.epochs:,}", work, state])
    shown = tables.markdown(["trial", *fields, "parameters", "steps", "work", "state"], lines[: status.SHOWN])
    more = f"\nand {len(lines) - status.SHOWN} more" if len(lines) > status.SHOWN else ""
    return "\n".join([shown + more, "", *_sums(sweep.trials, left, cost, rungs)])


def _sums(planned: Sequence[Trial], left: Sequence[Trial], cost: dict[str, Cost], rungs: Sequence[Rung]) -> list[str]:
    lines = [f"{_trials(len(planned))}: {_work(planned, cost)} in all, without evaluation"]
    if len(left) < len(planned):
        lines.append(f"{len(planned) - len(left)} are finished; {_trials(len(left))} left: {_work(left, cost)}")
    if rungs:
        told = ", ".join(f"{rung.trials} to epoch {rung.epochs}" for rung in rungs)
        before = [0, *(rung.epochs for rung in rungs)]
        epochs = sum(rung.trials * (rung.epochs - before[index]) for index, rung in enumerate(rungs))
        lines.append(f"with halving: {told}, which is {epochs:,} of {sum(trial.epochs for trial in planned):,} epochs")
    return lines


def _trials(count: int) -> str:
    return f"{count:,} trial{'s' * (count != 1)}"


def _work(planned: Sequence[Trial], cost: dict[str, Cost]) -> str:
    steps = sum(cost[trial.name].steps * trial.epochs for trial in planned)
    work = sum(cost[trial.name].steps * trial.epochs * cost[trial.name].flops for trial in planned)
    return f"{steps:,} steps, {dry_run.scaled(work, 'FLOP')}"
