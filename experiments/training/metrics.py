"""Writes the metrics of a run while it runs: to metrics.jsonl, to TensorBoard, and as a progress line."""

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from experiments.storage import files, run_folder
from experiments.training.steps import Sums

_WITH_EVALUATION = 1.2  # an epoch's training and evaluation over its training alone, on IMDB


def duration(seconds: float) -> str:
    """A duration in words, as "about 20 seconds" or "about 3 minutes"."""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} seconds"
    return f"about {round(seconds / 60)} minutes"


class Metrics:
    """Writes one row per epoch to `metrics.jsonl` and to TensorBoard. A context manager.

    Both are written anew from the rows of the position where an attempt starts, so that they never hold later ones.

    Args:
      workdir: The run folder.
      rows: The rows so far.
      times: When each of them was written, in seconds since 1970.

    Raises:
      OSError: They cannot be written.
    """

    def __init__(self, workdir: Path, rows: Sequence[dict[str, Any]] = (), times: Sequence[float] = ()):
        self._folder, self._earlier = workdir / run_folder.BOARD, list(zip(rows, times, strict=True))
        files.write_whole(workdir / run_folder.METRICS, "".join(map(_line, rows)))
        self._file = (workdir / run_folder.METRICS).open("a")
        for events in self._folder.glob("events.*"):
            events.unlink()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._earlier or "_board" in vars(self):  # an attempt without a new row writes the earlier ones anew too
            self._board.close()

    @functools.cached_property
    def _board(self) -> Any:
        """Created with the first row: tensorboardX imports PyTorch if it is installed, which would delay the first step."""
        from tensorboardX import SummaryWriter

        board = SummaryWriter(str(self._folder))
        for row, seconds in self._earlier:
            _add_scalars(board, row, seconds)
        return board

    def write(self, row: dict[str, Any]) -> None:
        """Writes the row of an epoch and flushes it."""
        self._file.write(_line(row))
        self._file.flush()
        _add_scalars(self._board, row)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _add_scalars(board: Any, row: dict[str, Any], seconds: float | None = None) -> None:
    for name, value in row.items():
        if name not in ("epoch", "step"):
            board.add_scalar(name, value, row["epoch"], walltime=seconds)


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
            self._show(
                f"{epochs} epoch{'s' if epochs > 1 else ''}{left}: {duration(epochs * epoch_seconds * _WITH_EVALUATION)}"
            )
            print(file=self._stream, flush=True)
            self._width = 0

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
        self._show(
            f"Epoch {row['epoch']:2d}/{self._epochs}  loss {row['train_loss']:.4f}  accuracy {row['train_accuracy']:.4f}"
            f"  val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}"
            f"  {row['step_milliseconds']:.1f} ms/step  {row['examples_per_second']:,.0f} examples/s{left}"
        )
        print(file=self._stream, flush=True)
        self._width = 0

    def _show(self, line: str) -> None:
        """Writes a line over the previous one."""
        start = "\r" if self._stream.isatty() else ""
        print(f"{start}{line:<{self._width}}", end="", file=self._stream, flush=True)
        self._width = len(line)


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
        self._show(f"        {line}")
        print(file=self._stream, flush=True)
