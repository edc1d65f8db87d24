"""Runs a sweep: what is not finished, in groups, on an engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from experiments.errors import Refusal
from experiments.machine.stopping import Signals, Stopped
from experiments.sweeps import failures, groups, halving, states, status, sweep_folder
from experiments.sweeps.groups import Group
from experiments.sweeps.ledgers import Ledgers
from experiments.sweeps.sweep_folder import Halving, Sweep
from experiments.sweeps.trials import Trial
from experiments.sweeps.watch import Watch


class Engine(Protocol):
    """What runs groups of trials; see `pool.Pool`."""

    described: str
    slots: int
    most: int

    def run(self, groups: Sequence[Group], label: str, sweepdir: Path, watch: Watch) -> None: ...

    def close(self) -> None: ...


def check(sweep: Sweep, sweepdir: Path | None, extend: bool, eta: int | None) -> Sweep:
    """Returns the sweep that a folder would have. Writes nothing.

    Raises:
      UsageError: The folder cannot be used for it, or successive halving cannot.
      DataError: What is in the folder is damaged.
    """
    if sweepdir is not None:
        sweep_folder.check(sweepdir)
        sweep = sweep_folder.merged(sweepdir, sweep, extend)
    if eta is not None:
        halving.rungs(sweep.trials, eta)
    return sweep


def run(sweep: Sweep, sweepdir: Path, engine: Engine, extend: bool, fail_fast: bool, eta: int | None, ledgers: Ledgers) -> None:
    """Writes a sweep to its folder, and runs what is not finished and has not failed.

    Args:
      sweep: The sweep.
      sweepdir: Its folder.
      engine: Where the trials run.
      extend: Whether the trials that the folder has are kept.
      fail_fast: Whether the first failure stops the others.
      eta: That of successive halving; None trains all trials to their ends.
      ledgers: Those whose trials count as done.

    Raises:
      UsageError: The folder cannot be used.
      Busy: Another process writes to it.
      Stopped: There was a signal. What was running is saved.
      Refusal: Trials have failed.
    """
    with Signals() as signals, sweep_folder.claim(sweepdir):
        sweep = sweep_folder.merged(sweepdir, sweep, extend)
        sweep_folder.write(sweepdir, sweep)
        _Runner(sweep, sweepdir, engine, signals, fail_fast, ledgers).run(eta)


def retry(sweepdir: Path, engine: Engine, fail_fast: bool, ledgers: Ledgers) -> None:
    """Runs the trials of a folder again that have failed, with successive halving if they did so before. Otherwise as `run`."""
    with Signals() as signals, sweep_folder.claim(sweepdir):
        runner = _Runner(sweep_folder.read(sweepdir), sweepdir, engine, signals, fail_fast, ledgers)
        runner.retry(sweep_folder.read_halving(sweepdir).eta)


class _Runner:
    """Runs the trials of a sweep.

    Args:
      sweep: The sweep, which is in the folder already.
      sweepdir: Its folder, whose lock is held.
      engine: Where they run.
      signals: What stops them.
      fail_fast: Whether the first failure stops them.
      ledgers: What has trials already, and gets those that are finished.
    """

    def __init__(self, sweep: Sweep, sweepdir: Path, engine: Engine, signals: Signals, fail_fast: bool, ledgers: Ledgers):
        self._sweep, self._sweepdir, self._engine, self._signals = sweep, sweepdir, engine, signals
        self._ledgers = ledgers
        self._watch = Watch(sweep, sweepdir, signals, fail_fast, ledgers)

    def run(self, eta: int | None) -> None:
        """Runs all trials that are neither finished nor failed."""
        self._signals.defer(together=False)
        self._ledgers.add(self._sweepdir, self._sweep.trials, self._sweep.label)
        if taken := self._ledgers.take(self._sweepdir, self._sweep.trials):
            self._watch.display.say(f"{taken} trial{'s are' if taken > 1 else ' is'} taken from a ledger.")
        if eta is None:
            sweep_folder.write_halving(self._sweepdir, None)
            self._round(self._sweep.trials, None)
        else:
            self._halve(eta)
        self._end()

    def retry(self, eta: int | None) -> None:
        """Runs the trials that have failed."""
        self._signals.defer(together=False)
        failed = [trial for trial in self._sweep.trials if trial.name in self._watch.failures]
        self._watch.forget(failed)
        if eta is None:
            self._round(failed, None)
        else:
            self._halve(eta)
        self._end()

    def _halve(self, eta: int) -> None:
        trials, rungs = self._sweep.trials, halving.rungs(self._sweep.trials, eta)
        for index, rung in enumerate(rungs):
            count = f"{len(trials)} trial{'s' * (len(trials) != 1)}"
            self._watch.display.say(f"Rung {index + 1} of {len(rungs)}: {count} to epoch {rung.epochs}.")
            self._round(trials, rung.epochs)
            if self._watch.stopping or rung is rungs[-1]:
                return
            trials = halving.best(self._sweepdir, trials, rung, rungs[index + 1].trials)
            sweep_folder.write_halving(self._sweepdir, Halving(eta, rung.epochs, [trial.name for trial in trials]))

    def _round(self, trials: Sequence[Trial], epochs: int | None) -> None:
        left = [trial for trial in trials if not states.is_done(self._sweepdir, trial, epochs)]
        self._watch.forget(trial for trial in trials if trial not in left)
        pending = [trial for trial in left if trial.name not in self._watch.failures]
        self._watch.display.begin(trials, pending, epochs)
        self._watch.display.say(_announcement(trials, left, pending, self._engine.described))
        parts = groups.grouped(pending, epochs, self._engine.slots, self._engine.most)
        self._engine.run(parts, self._sweep.label, self._sweepdir, self._watch)
        self._watch.display.close()

    def _end(self) -> None:
        trials, sweepdir = self._sweep.trials, self._sweepdir
        if self._signals.received is not None:
            finished = sum(states.is_done(sweepdir, trial, None) for trial in trials)
            then = f": {finished} of {len(trials)} trials are finished, the others are saved, and the same command continues"
            raise Stopped(self._signals.received, then)
        print(f"\n{status.table(self._sweep, sweepdir)}")
        failed = [trial for trial in trials if trial.name in self._watch.failures]
        if failed:
            print(f"\n{failures.table(failed, self._watch.failures, sweepdir / sweep_folder.LOGS)}")
            stopped = " and --fail_fast has stopped the others" if self._watch.stopping else ""
            raise Refusal(
                f"{len(failed)} of {len(trials)} trials have failed{stopped}; "
                f"sweep retry {sweep_folder.FLAG}={sweepdir} runs them again"
            )


def _announcement(trials: Sequence[Trial], left: Sequence[Trial], pending: Sequence[Trial], where: str) -> str:
    if pending:
        of_all = "" if len(pending) == len(trials) else f"of {len(trials)} "
        said = f"{len(pending)} {of_all}trial{'s' * (len(trials) > 1)} to train, on {where}."
    else:
        said = f"Nothing to train: {len(trials) - len(left)} of {len(trials)} trials are finished."
    failed = len(left) - len(pending)
    return said + (f" {failed} ha{'ve' if failed > 1 else 's'} failed before: sweep retry runs them again." if failed else "")
