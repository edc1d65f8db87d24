"""How far a trial is, read from its run folder, by whichever process."""

import contextlib
from collections.abc import Container
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.storage import files, lock, run_folder
from experiments.sweeps import sweep_folder
from experiments.sweeps.trials import Trial

Kind = Literal["finished", "running", "failed", "stopped", "out", "waiting"]


class State(NamedTuple):
    """How far a trial is.

    Attributes:
      kind: Stopped: begun, and nobody trains it now. Out: successive halving trains it no further.
      rows: The rows of its epochs.
    """

    kind: Kind
    rows: list[dict[str, Any]]

    @property
    def seconds(self) -> float:
        """The seconds of training, without compilation and evaluation, as in result.json."""
        return 1e-3 * sum(row["step_milliseconds"] for row in self.rows) * self.rows[0]["step"] if self.rows else 0.0


def of(sweepdir: Path, trial: Trial, failed: Container[str], out: Container[str] = ()) -> State:
    """Returns the state of a trial.

    Args:
      sweepdir: The folder of the sweep.
      trial: The trial.
      failed: The names of the trials that have failed.
      out: The names of those that halving trains no further.
    """
    folder, rows = sweep_folder.trial_folder(sweepdir, trial.name), read_rows(sweepdir, trial)
    if is_done(sweepdir, trial, None):
        return State("finished", rows)
    if lock.is_held(folder):
        return State("running", rows)
    if trial.name in failed:
        return State("failed", rows)
    if trial.name in out:
        return State("out", rows)
    return State("stopped" if rows or (folder / run_folder.CONFIG).exists() else "waiting", rows)


def read_rows(sweepdir: Path, trial: Trial) -> list[dict[str, Any]]:
    """Returns the rows of a trial, one an epoch; none if they are damaged, since `train` makes them anew then."""
    with contextlib.suppress(OSError, ValueError):
        return files.read_lines(sweep_folder.trial_folder(sweepdir, trial.name) / run_folder.METRICS)
    return []


def is_done(sweepdir: Path, trial: Trial, epochs: int | None) -> bool:
    """Returns whether a trial needs no more training up to an epoch; None: to its last one.

    The name of the folder says that the run is that of the trial. Its config may have fewer epochs, as long as halving has not
    decided that it goes on; and if it has more than are asked for, its rows say how far it is.
    """
    folder, target = sweep_folder.trial_folder(sweepdir, trial.name), epochs or trial.epochs
    try:
        planned = files.read_object(folder / run_folder.CONFIG)["epochs"]
        if planned > target:
            return len(read_rows(sweepdir, trial)) >= target
        return planned == target and bool(files.read_object(folder / run_folder.RESULT))
    except (OSError, ValueError, KeyError, TypeError):
        return False
