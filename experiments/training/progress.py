"""What is shown of a run while it trains."""

import sys
from typing import Any, TextIO

from experiments.training.steps import Sums

_WITH_EVALUATION = 1.2  # an epoch's training and evaluation over its training alone, on IMDB


def duration(seconds: float) -> str:
    """A duration in words, as "about 20 seconds" or "about 3 minutes"."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} seconds"
    return f"about {round(seconds / 60)} minutes"


class Progress:
    """A progress line like that of Keras: rewritten during the epoch in a terminal, printed once per epoch elsewhere.

    Args:
      epochs: The number of epochs of the run.
      stream: Where the lines are written; None is standard output.
    """

    def __init__(self, epochs: int, stream: TextIO | None = None):
        self._epochs = epochs
        self._stream = stream or sys.stdout
        self._width = 0
        self._estimated = False

    def of(self, index: int) -> "Progress":
        """Returns what shows one of the runs that are trained together: this, which does not tell them apart."""
        del index
        return self

    def ended(self) -> None:
        """Is told that the run has ended, in whatever way."""

    def say(self, line: str) -> None:
        """Prints a line about the run."""
        print(line, file=self._stream, flush=True)

    def start(self) -> None:
        """Says when the duration will be known."""
        print("Compiling. How long the run takes will be known after its first steps.", file=self._stream, flush=True)

    def estimate(self, epoch_seconds: float, epochs: int) -> None:
        """Says once how long the epochs that are left will take, from the seconds of training in one of them."""
        if not self._estimated:
            self._estimated = True
            left = "" if epochs == self._epochs else " left"
            self._keep(
                f"{epochs} epoch{'s' if epochs > 1 else ''}{left}: {duration(epochs * epoch_seconds * _WITH_EVALUATION)}"
            )

    def update(self, epoch: int, step: int, steps: int, sums: Sums, seconds: float) -> None:
        """Shows the state of an epoch after `step` of `steps` and the given seconds."""
        if not self._stream.isatty():
            return
        loss, accuracy = sums.means()
        bar = "━" * (20 * step // steps)
        self._show(
            f"Epoch {epoch:2d}/{self._epochs} {step:4d}/{steps} {bar:<20} loss {loss:.4f}  accuracy {accuracy:.4f}"
            f"  {int(sums.examples) / seconds:,.0f} examples/s  {seconds / step * (steps - step):.0f} s left"
        )

    def epoch(self, row: dict[str, Any], seconds_left: float) -> None:
        """Prints the row of a finished epoch."""
        left = f"  {seconds_left:.0f} s left" if seconds_left else ""
        self._keep(
            f"Epoch {row['epoch']:2d}/{self._epochs}  loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}"
            f"  val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}"
            f"  {row['step_milliseconds']:.1f} ms/step  {row['examples_per_second']:,.0f} examples/s{left}"
        )

    def _show(self, line: str) -> None:
        """Writes a line over the previous one."""
        start = "\r" if self._stream.isatty() else ""
        print(f"{start}{line:<{self._width}}", end="", file=self._stream, flush=True)
        self._width = len(line)

    def _keep(self, line: str) -> None:
        """Writes a line over the previous one, which stays."""
        self._show(line)
        print(file=self._stream, flush=True)
        self._width = 0


class BriefProgress(Progress):
    """One line for a whole run, rewritten in a terminal and printed at the end elsewhere."""

    def start(self) -> None:
        """Says nothing: the caller has said how long it takes."""

    def estimate(self, epoch_seconds: float, epochs: int) -> None:
        """Says nothing, as `start`."""

    def update(self, epoch: int, step: int, steps: int, sums: Sums, seconds: float) -> None:
        """Shows the current epoch."""
        if self._stream.isatty():
            self._show(f"        epoch {epoch} of {self._epochs}")

    def epoch(self, row: dict[str, Any], seconds_left: float) -> None:
        """Shows the accuracy after an epoch."""
        if self._stream.isatty():
            self._show(f"        epoch {row['epoch']} of {self._epochs}, validation accuracy {row['val_accuracy']:.3f}")

    def close(self, line: str) -> None:
        """Prints the last line, which stays."""
        self._keep(f"        {line}")
