"""What a training writes while it runs: rows, checkpoints, and how it diverged. One of several processes writes it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.data.corpus import Corpus
from experiments.machine import processes
from experiments.settings import Config
from experiments.storage import provenance
from experiments.storage.lock import Held
from experiments.storage.metrics import Metrics
from experiments.storage.saving import Saver
from experiments.training import divergence
from experiments.training.divergence import Diverged
from experiments.training.position import Position


class Record:
    """The record of a process that does not write."""

    def row(self, row: dict[str, Any]) -> None:
        """Writes the row of an epoch."""

    def due(self, at: Position) -> bool:
        """Returns whether a position is to be saved."""
        return False

    def save(self, at: Position) -> None:
        """Saves a position."""

    def try_to_save(self, at: Position) -> None:
        """Saves a position; a failure is told, and is an error only if it is the third in a row."""

    def diverged(self, error: Diverged) -> None:
        """Writes what is known of a step that is not finite."""


class Written(Record):
    """The record of the process that writes.

    Args:
      workdir: The run folder, whose lock is held.
      metrics: Writes the rows.
      saver: Writes the checkpoints.
    """

    def __init__(self, workdir: Path, metrics: Metrics, saver: Saver):
        self._workdir, self.row = workdir, metrics.write
        self.due, self.save, self.try_to_save = saver.due, saver.save, saver.try_to_save

    def diverged(self, error: Diverged) -> None:
        divergence.write(self._workdir, error)


@contextlib.contextmanager
def opened(held: Held | None, config: Config, corpus: Corpus, start: Position, runs: int = 1) -> Iterator[Record]:
    """Opens the record of an attempt that begins at a position, and writes the line of its end to provenance.jsonl.

    Args:
      held: The lock of the run folder; None in a process that does not write.
      config: The config of the run.
      corpus: Its corpus.
      start: Where the attempt begins.
      runs: How many runs are trained together.
    """
    if held is None:
        yield Record()
        return
    workdir = held.workdir
    with (
        provenance.attempt(workdir, start.step, corpus_sha256=corpus.sha256, process=processes.described()) as attempt,
        Metrics(workdir, start.rows, start.times) as metrics,
    ):
        yield Written(workdir, metrics, Saver(held, config, corpus, attempt, start, runs))
