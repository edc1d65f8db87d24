"""Successive halving: all trials are trained for some epochs, the best 1/eta of them for eta times as many, and so on.

A trial goes on from its last step, exactly: more epochs in its config continue a finished run.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.errors import UsageError
from experiments.sweeps import states
from experiments.sweeps.trials import Trial, described


class Rung(NamedTuple):
    """A rung: so many trials are trained up to so many epochs."""

    trials: int
    epochs: int


def rungs(trials: Sequence[Trial], eta: int) -> list[Rung]:
    """Returns the rungs, from the first to the last.

    Raises:
      UsageError: The trials cannot be compared after the same epochs, or there are too few of them or of their epochs.
    """
    if not 2 <= eta <= 100:
        raise UsageError(f"--halving={eta} must be an integer from 2 to 100")
    for number, trial in enumerate(trials, start=1):
        if trial.fields["schedule"] != "constant":
            raise UsageError(
                f"point {number} ({described(trial.point)}): config.schedule={trial.fields['schedule']} must be constant with "
                "--halving, since its learning rates depend on the epochs"
            )
        if trial.epochs != trials[0].epochs:
            raise UsageError(f"point {number} ({described(trial.point)}): --halving needs the same epochs in all points")
    epochs = trials[0].epochs
    last = int(math.log(min(len(trials), epochs), eta) + 1e-9)
    if last < 1:
        raise UsageError(f"--halving={eta} needs {eta} trials of {eta} epochs or more, not {len(trials)} of {epochs}")
    return [Rung(max(1, len(trials) // eta**i), epochs // eta ** (last - i)) for i in range(last + 1)]


def best(sweepdir: Path, trials: Sequence[Trial], rung: Rung, count: int) -> list[Trial]:
    """Returns the trials that go on after a rung, in their order: those with the highest validation accuracy at its last epoch.

    Of equal ones, the one with the lower loss goes on, and then the earlier one. A trial that has failed does not.
    """
    scores = {}
    for index, trial in enumerate(trials):
        if states.is_done(sweepdir, trial, rung.epochs):
            row = states.read_rows(sweepdir, trial)[: rung.epochs][-1]
            scores[trial.name] = (-row["val_accuracy"], row["val_loss"], index)
    chosen = sorted(scores, key=scores.__getitem__)[:count]
    return [trial for trial in trials if trial.name in chosen]
