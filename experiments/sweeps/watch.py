"""What is known of a sweep while it runs: who has ended, who has failed, and whether it is to stop."""

from collections.abc import Iterable
from pathlib import Path

from experiments.machine.stopping import INTERRUPTED, PREEMPTED, Signals
from experiments.sweeps import sweep_folder
from experiments.sweeps.display import Display
from experiments.sweeps.failures import Failure
from experiments.sweeps.groups import Group
from experiments.sweeps.ledgers import Ledgers
from experiments.sweeps.sweep_folder import Sweep
from experiments.sweeps.trials import Trial

_STOPPED = (PREEMPTED, INTERRUPTED, -15)  # what a process ends with that was asked to stop


class Watch:
    """Is told by an engine what happens, and tells it whether to go on.

    Args:
      sweep: The sweep.
      sweepdir: Its folder, whose lock is held.
      signals: What stops the sweep.
      fail_fast: Whether the first failure stops it.
      ledgers: Where trials that have ended well are added.

    Attributes:
      failures: How trials have failed, by their names.
      failed_now: Whether one of them was in this attempt.
      display: What shows the trials.
    """

    def __init__(self, sweep: Sweep, sweepdir: Path, signals: Signals, fail_fast: bool, ledgers: Ledgers):
        self.failures, self.failed_now = sweep_folder.read_failures(sweepdir), False
        self._sweep, self._sweepdir, self._signals, self._fail_fast = sweep, sweepdir, signals, fail_fast
        self._ledgers = ledgers
        self.display = Display(sweepdir)

    @property
    def stopping(self) -> bool:
        """Whether the engine is to start nothing more, and to stop what runs."""
        return self._signals.received is not None or (self._fail_fast and self.failed_now)

    def started(self, group: Group) -> None:
        """Is told that the trials of a group are being trained."""
        self.display.started(group.trials)

    def ended(self, group: Group, failures: dict[str, Failure]) -> None:
        """Is told that the process of a group has ended, and which of its trials have failed."""
        if self.stopping:
            failures = {name: failure for name, failure in failures.items() if failure.code not in _STOPPED}
        if failures:
            self.failures |= failures
            self.failed_now = True
            sweep_folder.write_failures(self._sweepdir, self.failures)
        self.display.ended(group.trials, group.epochs, failures)
        self._ledgers.add(self._sweepdir, group.trials, self._sweep.label)

    def tick(self) -> None:
        """Is told that time has passed."""
        self.display.tick()

    def forget(self, trials: Iterable[Trial]) -> None:
        """Forgets how trials have failed: they run again."""
        kept = {name: f for name, f in self.failures.items() if name not in {trial.name for trial in trials}}
        if kept != self.failures:
            self.failures = kept
            sweep_folder.write_failures(self._sweepdir, kept)
