"""The folder of a sweep: which trials it has, and which of them have failed. One process writes it at a time.

sweep.json       the config that the trials share, and the point of each
failures.json    how trials have failed that are not finished
halving.json     how far successive halving is
trials/NAME/     the run folder of a trial
logs/NAME.log    what the process printed that trained it; NAME is the first of those that it trained together
LOCK             who writes the folder now
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import settings
from experiments.errors import DataError, UsageError
from experiments.storage import entries, files, lock, run_folder
from experiments.sweeps.failures import Failure
from experiments.sweeps.trials import Trial

SWEEP, FAILURES, HALVING, TRIALS, LOGS = "sweep.json", "failures.json", "halving.json", "trials", "logs"
FLAG = "--sweepdir"
_DAMAGE = (OSError, ValueError, KeyError, TypeError)


class Sweep(NamedTuple):
    """A sweep.

    Attributes:
      label: The name of its page of `configs/`.
      base: The flat fields of the page, with those that flags have changed.
      trials: Its trials, in the order of its points.
    """

    label: str
    base: dict[str, Any]
    trials: list[Trial]


class Halving(NamedTuple):
    """How far successive halving is.

    Attributes:
      eta: One of so many trials goes on; None: the sweep is not halved.
      epochs: Those of the last rung that has ended.
      go_on: The names of the trials that went on after it.
    """

    eta: int | None = None
    epochs: int = 0
    go_on: list[str] = []  # noqa: RUF012 (of an immutable tuple, never changed)


def trial_folder(sweepdir: Path, name: str) -> Path:
    """Returns the run folder of a trial."""
    return sweepdir / TRIALS / name


def log_of(sweepdir: Path, trials: Sequence[Trial]) -> Path:
    """Returns the log of the process that trains some trials together."""
    return sweepdir / LOGS / f"{trials[0].name}.log"


def check(sweepdir: Path) -> None:
    """Raises UsageError if a folder cannot be that of a sweep. Creates nothing."""
    run_folder.check(sweepdir, FLAG)
    if (sweepdir / run_folder.CONFIG).exists():
        raise UsageError(f"{FLAG}={sweepdir} holds a run: choose another folder")


@contextlib.contextmanager
def claim(sweepdir: Path) -> Iterator[None]:
    """Creates the folder and holds its lock.

    Raises:
      UsageError: The folder cannot be written.
      Busy: Another process writes to it.
    """
    check(sweepdir)
    with files.no_leftovers(sweepdir), lock.hold(sweepdir, FLAG):
        yield


def write(sweepdir: Path, sweep: Sweep) -> None:
    """Writes sweep.json."""
    trials = [{"trial": trial.name, "point": trial.point, "corpus_sha256": trial.corpus} for trial in sweep.trials]
    files.write_json(sweepdir / SWEEP, {"label": sweep.label, "base": sweep.base, "trials": trials})


def read(sweepdir: Path) -> Sweep:
    """Returns the sweep of a folder.

    Raises:
      UsageError: The folder holds none.
      DataError: It is damaged.
    """
    try:
        content = files.read_object(sweepdir / SWEEP)
        base = _tuples(settings.LATER | content["base"])
        trials = []
        for line in content["trials"]:
            point = _tuples(line["point"])
            trials.append(Trial(line["trial"], point, {**base, **point}, line["corpus_sha256"]))
        return Sweep(content["label"], base, trials)
    except FileNotFoundError:
        raise UsageError(f"{FLAG}={sweepdir} holds no sweep: {SWEEP} is missing") from None
    except _DAMAGE as error:
        raise DataError(f"{FLAG}={sweepdir} is damaged: {entries.fault(SWEEP, error)}") from None


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}  # JSON has no tuples


def merged(sweepdir: Path, here: Sweep, extend: bool) -> Sweep:
    """Returns the sweep that a folder gets, which may hold one.

    Args:
      sweepdir: The folder.
      here: The sweep that is asked for.
      extend: Whether the trials that the folder has are kept, whatever their config.

    Raises:
      UsageError: The trials there share another config, or the data is another, and `extend` is False. Names what differs.
      DataError: The sweep there is damaged.
    """
    if not (sweepdir / SWEEP).exists():
        return here
    there = read(sweepdir)
    if extend:
        names = {trial.name for trial in here.trials}
        return here._replace(trials=[_rebased(t, here.base) for t in there.trials if t.name not in names] + here.trials)
    if differing := _differences(there, here):
        raise UsageError(
            f"{FLAG}={sweepdir} holds a sweep of another config: {differing}; --extend keeps its trials and adds these"
        )
    return here


def _differences(there: Sweep, here: Sweep) -> str:
    """Returns in what two sweeps differ beside their points."""
    varied = [set.intersection(*(set(trial.point) for trial in sweep.trials)) for sweep in (there, here)]
    differing = settings.differences(there.base, here.base, but=tuple(varied[0] & varied[1]))
    corpora = {trial.fingerprint: trial.corpus for trial in there.trials}
    if not differing and any(corpora.get(trial.fingerprint, trial.corpus) != trial.corpus for trial in here.trials):
        return f"the corpus {here.base['data.name']} is another version"
    return differing


def _rebased(trial: Trial, base: dict[str, Any]) -> Trial:
    """Returns a trial with its point relative to another base."""
    others = {f: value for f, value in trial.fields.items() if f not in settings.FREE and value != base[f]}
    changed = trial.point | others
    return trial._replace(point=changed, fields={**base, **changed})


def others(sweepdir: Path, trials: Sequence[Trial]) -> int:
    """Returns how many run folders there are of trials that the sweep no longer has."""
    with contextlib.suppress(OSError):
        return len({path.name for path in (sweepdir / TRIALS).iterdir()} - {trial.name for trial in trials})
    return 0


def read_failures(sweepdir: Path) -> dict[str, Failure]:
    """Returns how trials have failed, by their names. Raises DataError if the file is damaged."""
    try:
        return {name: Failure(**content) for name, content in files.read_object(sweepdir / FAILURES).items()}
    except FileNotFoundError:
        return {}
    except _DAMAGE as error:
        reason = entries.fault(FAILURES, error)
        raise DataError(f"{FLAG}={sweepdir} is damaged: {reason}; without it, failed trials run again") from None


def write_failures(sweepdir: Path, failures: dict[str, Failure]) -> None:
    """Writes failures.json."""
    files.write_json(sweepdir / FAILURES, {name: failure._asdict() for name, failure in failures.items()})


def read_halving(sweepdir: Path) -> Halving:
    """Returns how far successive halving is. Raises DataError if the file is damaged."""
    try:
        return Halving(**files.read_object(sweepdir / HALVING))
    except FileNotFoundError:
        return Halving()
    except _DAMAGE as error:
        raise DataError(f"{FLAG}={sweepdir} is damaged: {entries.fault(HALVING, error)}") from None


def write_halving(sweepdir: Path, halving: Halving | None) -> None:
    """Writes halving.json, or removes it."""
    if halving:
        files.write_json(sweepdir / HALVING, halving._asdict())
    else:
        (sweepdir / HALVING).unlink(missing_ok=True)
