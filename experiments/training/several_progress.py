"""What is shown of several runs that are trained together: a line an epoch for all of them."""

import statistics
from collections.abc import Sequence
from typing import Any, TextIO

from experiments.training.progress import Progress
from experiments.training.steps import Sums


class SeveralProgress(Progress):
    """Shows an epoch when every run that is left has ended it.

    Args:
      epochs: The number of epochs of the runs.
      names: The name of each run.
      stream: As in `Progress`.
    """

    def __init__(self, epochs: int, names: Sequence[str], stream: TextIO | None = None):
        super().__init__(epochs, stream)
        self._names, self._started = names, False
        self._rows: list[dict[str, Any] | None] = [None] * len(names)
        self._left = set(range(len(names)))

    def of(self, index: int) -> Progress:
        """Returns what shows one of the runs."""
        return _One(self, index, self._stream)

    def start(self) -> None:
        """Says when the duration will be known, once."""
        if not self._started:
            self._started = True
            super().start()

    def estimate(self, epoch_seconds: float, epochs: int) -> None:
        """Says once how long the runs will take, from the seconds of an epoch of one of them."""
        super().estimate(epoch_seconds * len(self._left), epochs)

    def said(self, index: int, line: str) -> None:
        """Prints a line about one of the runs."""
        self.say(f"{self._names[index]}: {line}")

    def stepped(self, index: int, epoch: int, step: int, steps: int, sums: Sums, seconds: float) -> None:
        """Shows which run was just trained, in a terminal."""
        if self._stream.isatty():
            loss, accuracy = sums.means()
            self._show(
                f"Epoch {epoch:2d}/{self._epochs} {step:4d}/{steps}  {self._names[index]}"
                f"  loss {loss:.4f}  accuracy {accuracy:.4f}"
            )

    def left(self, index: int) -> None:
        """Is told that a run has ended, whose rows are not waited for any more."""
        self._left.discard(index)

    def row(self, index: int, row: dict[str, Any], seconds_left: float) -> None:
        """Takes the row of a run, and prints a line if it was the last one to end its epoch."""
        self._rows[index] = row
        rows = [found for i in self._left if (found := self._rows[i]) is not None and found["epoch"] >= row["epoch"]]
        if len(rows) < len(self._left) or any(found["epoch"] > row["epoch"] for found in rows):
            return
        values = [found["val_accuracy"] for found in rows]
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        left = f"  {seconds_left:.0f} s left" if seconds_left else ""
        mean = {key: statistics.fmean(found[key] for found in rows) for key in ("train_loss", "val_loss", "step_milliseconds")}
        self._keep(
            f"Epoch {row['epoch']:2d}/{self._epochs}  {len(rows)} run{'s' * (len(rows) > 1)}  loss {mean['train_loss']:.4f}  "
            f"val_loss {mean['val_loss']:.4f}  val_accuracy {statistics.fmean(values):.4f}{spread} "
            f"({min(values):.4f} to {max(values):.4f})  {mean['step_milliseconds']:.1f} ms/step of a run{left}"
        )


class _One(Progress):
    """One of the runs, which tells the others' progress what it does."""

    def __init__(self, several: SeveralProgress, index: int, stream: TextIO):
        super().__init__(0, stream)
        self._several, self._index = several, index

    def ended(self) -> None:
        self._several.left(self._index)

    def say(self, line: str) -> None:
        self._several.said(self._index, line)

    def start(self) -> None:
        self._several.start()

    def estimate(self, epoch_seconds: float, epochs: int) -> None:
        self._several.estimate(epoch_seconds, epochs)

    def update(self, epoch: int, step: int, steps: int, sums: Sums, seconds: float) -> None:
        self._several.stepped(self._index, epoch, step, steps, sums, seconds)

    def epoch(self, row: dict[str, Any], seconds_left: float) -> None:
        self._several.row(self._index, row, seconds_left)
