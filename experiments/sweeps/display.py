"""What is shown of a sweep while it runs: one line that is rewritten on a terminal, a line for each ended trial elsewhere."""

import shutil
import sys
import time
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TextIO

from experiments.sweeps import states
from experiments.sweeps.trials import Trial, described
from experiments.training.progress import duration

_SHARE = 0.1  # of the time, at most, goes into reading how far the running trials are


class Display:
    """Shows the trials of a round: of the sweep, or of a rung of successive halving.

    Args:
      sweepdir: The folder of the sweep.
      stream: Where it is written; None is standard output.
    """

    def __init__(self, sweepdir: Path, stream: TextIO | None = None):
        self._sweepdir, self._stream = sweepdir, stream or sys.stdout
        self._running: dict[str, Trial] = {}
        self._width, self._next = 0, 0.0
        self._total = self._ended = self._failed = 0
        self._epochs: dict[str, int] = {}  # of each trial of the round, up to its end
        self._first: dict[str, int] = {}  # epochs that were done before this attempt
        self._now: dict[str, int] = {}  # epochs that are done
        self._started = time.monotonic()

    def begin(self, trials: Sequence[Trial], pending: Sequence[Trial], epochs: int | None) -> None:
        """Begins a round.

        Args:
          trials: All trials of the round.
          pending: Those that are still to be trained.
          epochs: Up to which epoch; None: to the last one of each.
        """
        self._total, self._ended, self._failed = len(trials), len(trials) - len(pending), 0
        self._epochs = {trial.name: epochs or trial.epochs for trial in pending}
        self._first = {trial.name: self._done(trial) for trial in pending}
        self._now = dict(self._first)
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        self._show("")
        print(line, file=self._stream, flush=True)

    def started(self, trials: Sequence[Trial]) -> None:
        """Is told that trials are being trained."""
        self._running |= {trial.name: trial for trial in trials}

    def ended(self, trials: Sequence[Trial], epochs: int | None, failed: Container[str]) -> None:
        """Is told that the process of some trials has ended, and which of them have failed."""
        for trial in trials:
            self._running.pop(trial.name, None)
            done = states.is_done(self._sweepdir, trial, epochs)
            if done or trial.name in failed:
                self._ended += 1
                self._failed += not done
                self._now[trial.name] = self._epochs.get(trial.name, 0)
                if not (done and self._stream.isatty()):
                    self.say(self._line(trial, done))
        self._next = 0.0
        self.tick()

    def tick(self) -> None:
        """Rewrites the line, on a terminal."""
        started = time.monotonic()
        if started < self._next or not self._stream.isatty():
            return
        for trial in self._running.values():
            self._now[trial.name] = self._done(trial)
        self._next = started + max(0.5, (time.monotonic() - started) / _SHARE)
        self._show(self._status())

    def close(self) -> None:
        """Removes the line."""
        self._show("")

    def _done(self, trial: Trial) -> int:
        return min(len(states.read_rows(self._sweepdir, trial)), self._epochs[trial.name])

    def _line(self, trial: Trial, done: bool) -> str:
        rows = states.read_rows(self._sweepdir, trial)
        accuracy = f"val_accuracy {rows[-1]['val_accuracy']:.4f}" if done and rows else "failed" * (not done)
        for running in self._running.values():
            self._now[running.name] = self._done(running)
        return f"[{self._ended}/{self._total}] {trial.name}  {described(trial.point)}  {accuracy}{self._left()}"

    def _status(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        epochs = [f"{self._now[name]}/{self._epochs[name]}" for name in list(self._running)[:4]]
        more = ", …" if len(self._running) > len(epochs) else ""
        running = f", {len(self._running)} running (epoch {', '.join(epochs)}{more})" if epochs else ""
        return f"{self._ended - self._failed} of {self._total} trials finished{failed}{running}{self._left()}"

    def _left(self) -> str:
        """Returns the time that is left, from the epochs of this attempt so far."""
        done = sum(self._now.values()) - sum(self._first.values())
        left = sum(self._epochs.values()) - sum(self._now.values())
        if done <= 0 or left <= 0:
            return ""
        return f"  {duration((time.monotonic() - self._started) / done * left)} left"

    def _show(self, line: str) -> None:
        """Writes a line over the previous one, on a terminal."""
        line = line[: shutil.get_terminal_size().columns - 1]  # one that is wrapped could not be rewritten
        if self._stream.isatty() and (line or self._width):
            print(f"\r{line:<{self._width}}" + "\r" * (not line), end="", file=self._stream, flush=True)
        self._width = len(line)
