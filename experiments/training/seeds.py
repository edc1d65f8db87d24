"""Trains a run with each of several seeds, in one program."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from experiments import ranges
from experiments.errors import Refusal, UsageError
from experiments.machine import processes
from experiments.machine.stopping import Stopped
from experiments.report import tables
from experiments.settings import Config
from experiments.storage import run_folder
from experiments.training import together
from experiments.training.several_progress import SeveralProgress
from experiments.training.together import Member, Outcome

_COLUMNS = {
    "final_val_loss": "val_loss",
    "final_val_accuracy": "val_accuracy",
    "best_val_accuracy": "best",
    "test_accuracy": "test_accuracy",
}


def members(config: Config, workdir: Path) -> list[Member]:
    """Returns the runs of a config with `seeds`: one for each seed, in `WORKDIR/seed_K`.

    Raises:
      UsageError: The folder holds a run itself.
    """
    if (workdir / run_folder.CONFIG).exists():
        raise UsageError(f"--workdir={workdir} holds a run: with config.seeds={config.seeds} choose another folder")
    found = []
    for seed in ranges.integers(config.seeds):
        own = config.copy_and_resolve_references()
        own.seeds, own.seed = None, seed
        found.append(Member(own, workdir / f"seed_{seed}"))
    return found


def train(config: Config, workdir: Path, label: str) -> None:
    """Trains the runs of a config with `seeds`, and prints a table of their results; see `together.train`.

    Raises:
      Stopped: There was a signal. All runs are saved.
      Refusal: Runs have failed. The others have finished.
    """
    runs = members(config, workdir)
    names = [f"seed {member.config.seed}" for member in runs]
    outcomes = dict(zip(names, together.train(runs, label, SeveralProgress(config.epochs, names)), strict=True))
    for outcome in outcomes.values():
        if isinstance(outcome, Stopped):
            raise Stopped(outcome.received, f": all {len(runs)} runs are saved, and the same command continues")
    if not processes.is_writer():
        return
    failed = {name: str(outcome) for name, outcome in outcomes.items() if isinstance(outcome, Exception)}
    print(f"\n{summary(outcomes)}\n")
    print(*(f"{name}: {reason}" for name, reason in failed.items()), sep="\n", end="\n" if failed else "")
    print(f"The runs are in {workdir}.")
    if failed:
        raise Refusal(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")


def summary(outcomes: Mapping[str, Outcome]) -> str:
    """Returns a table of the results, with their mean and their standard deviation."""
    results = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, Exception)}
    values = {name: [result[column] for column in _COLUMNS] for name, result in results.items()}
    if len(results) > 1:
        columns = list(zip(*values.values(), strict=True))
        values |= {"mean": list(map(statistics.fmean, columns)), "sd": list(map(statistics.stdev, columns))}
    return tables.markdown(["", *_COLUMNS.values()], [[name, *(f"{x:.4f}" for x in row)] for name, row in values.items()])
