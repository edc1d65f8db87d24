"""The loop over the epochs of a run, from any position to its end.

It is a generator: it yields a request for a compiled call, and receives the answer; see `programs`.
"""

import math
import time
from collections.abc import Generator
from typing import Any

import jax
import numpy as np

from experiments.data.corpus import Corpus
from experiments.machine import processes
from experiments.machine.stopping import Signals
from experiments.settings import Config
from experiments.storage.record import Record
from experiments.training import steps
from experiments.training.divergence import Diverged
from experiments.training.position import Position, best_row
from experiments.training.programs import Evaluate, Evaluated, Request, Train, Trained
from experiments.training.progress import Progress

_CALL_SECONDS = 1.0  # duration of a compiled call: long against the cost of a call, short enough for a progress line
Calls = Generator[Request, Any, None]


class Fit:
    """Trains from a position to the end of a run.

    Args:
      config: The config of the run. With `steps_per_call=None` the number of steps is adapted to calls of about a second.
      plan: What the programs are compiled for.
      corpus: The corpus.
      position: Where to start.
      signals: What stops the training.

    Attributes:
      position: Where the training is. It changes in one assignment, so that it can be saved whatever happens.
      steps: The number of steps in an epoch.
    """

    def __init__(self, config: Config, plan: steps.Plan, corpus: Corpus, position: Position, signals: Signals):
        self.position = position
        self.steps = -(-len(corpus.train.labels) // config.batch_size)
        self._config, self._signals = config, signals
        self._plan, self._split = plan, corpus.train
        self._steps_per_call, self._calls, self._started = config.steps_per_call or 1, 0, 0.0

    def run(self, record: Record, progress: Progress) -> Calls:
        """Trains all epochs that are left.

        Raises:
          Stopped: A signal has come. `position` is not saved yet.
          Diverged: A loss or a gradient is not finite. `position` is the one before that step.
          OSError: Metrics or checkpoints cannot be written.
        """
        if self.finished():
            return
        progress.start()
        before = len(self.position.rows)
        while not self.finished():
            yield from self.train_epoch(record, progress)
            yield from self._end_epoch(record)
            rows = self.position.rows
            seconds = (time.monotonic() - self._started) / (len(rows) - before)
            progress.epoch(rows[-1], 0.0 if self.finished() else seconds * (self._config.epochs - len(rows)))

    def finished(self) -> bool:
        """Returns whether the last epoch has ended, or whether `config.patience` epochs have not been better than the best."""
        rows, patience = self.position.rows, self._config.patience
        if not rows:
            return False
        too_long = patience is not None and len(rows) - best_row(rows)["epoch"] >= patience
        return too_long or len(rows) >= self._config.epochs

    def train_epoch(self, record: Record, progress: Progress) -> Calls:
        """Runs the steps that are left of the current epoch."""
        epoch = len(self.position.rows) + 1
        batches = self.batches(epoch)
        while self.position.done < self.steps:
            done, answer = yield from self._call(batches)
            at = self.position
            # All processes stop, save and run the next call together.
            stop, due, seconds = processes.agree(self._signals.received is not None, record.due(at), answer.seconds)
            if self._config.steps_per_call is None:
                self._steps_per_call = max(1, round(_CALL_SECONDS * done / seconds))
            if self._calls > 1 or at.done == self.steps:  # the first call alone is too short to tell
                progress.estimate(answer.share / done * self.steps, self._config.epochs - len(at.rows))
            progress.update(epoch, at.done, self.steps, at.sums, at.seconds)
            self._signals.stop_if(stop)
            if due:
                record.try_to_save(at)

    def batches(self, epoch: int) -> steps.Batches:
        """Returns the batches of an epoch, which is counted from 1."""
        return jax.block_until_ready(self._plan.batches(self._split.tokens, self._split.labels, self._order(epoch)))

    def _order(self, epoch: int) -> np.ndarray:
        """Returns the indices of the examples in the batches of an epoch; see `steps.epoch_order`."""
        return np.asarray(steps.epoch_order(self._plan, self.position.state.rng, epoch - 1, len(self._split.labels)))

    def _call(self, batches: steps.Batches) -> Generator[Train, Trained, tuple[int, Trained]]:
        """Asks for the next steps of an epoch in one call. Returns their number, and the answer."""
        at, every = self.position, self._config.checkpoint_every
        last = min(at.done + self._steps_per_call, self.steps)
        if every is not None:
            last = min(last, at.done + every - at.step % every)
        self._calls += 1
        answer = yield Train((len(at.rows), at.done), at.state, at.sums, batches, at.done, last)
        if self._calls == 1:  # behind the compilation
            self._started = time.monotonic() - answer.share
        self.position = at._replace(
            state=answer.state,
            sums=answer.sums,
            done=last if answer.bad < 0 else answer.bad,
            seconds=at.seconds + answer.share,
            compile_seconds=at.compile_seconds + answer.compile_seconds,
        )
        if answer.bad >= 0:
            raise self._diverged(batches)
        return last - at.done, answer

    def _end_epoch(self, record: Record) -> Generator[Evaluate, Evaluated, None]:
        """Evaluates the validation split and adds the row of the epoch."""
        at = self.position
        found = yield Evaluate((len(at.rows), at.done), "validation", at.state.params)
        loss, accuracy = at.sums.means()
        row = {
            "epoch": len(at.rows) + 1,
            "step": at.step,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "val_loss": found.loss,
            "val_accuracy": found.accuracy,
            "examples_per_second": int(at.sums.examples) / at.seconds,
            "real_tokens_per_second": int(at.sums.tokens) / at.seconds,
            "step_milliseconds": 1e3 * at.seconds / self.steps,
            "compile_seconds": at.compile_seconds + found.compile_seconds,
        }
        if not all(map(math.isfinite, (loss, found.loss))):
            told = {"epoch": row["epoch"], "step": at.step, "loss": loss, "val_loss": found.loss}
            raise Diverged(f"epoch {row['epoch']}: loss {loss}, val_loss {found.loss}", told)
        record.row(row)
        self.position = at.with_row(row, self._plan.replicate(steps.Sums.zero()))

    def _diverged(self, batches: steps.Batches) -> Diverged:
        """Returns the error of the next step, whose loss or gradient is not finite."""
        at, epoch = self.position, len(self.position.rows) + 1
        loss, parameters, gradients = jax.device_get(steps.norms(self._plan, at.state, steps.at(batches, at.done)))
        indices = self._order(epoch)[at.done]
        found = {"epoch": epoch, "step": at.step + 1, "loss": float(loss)}
        norms = {"parameter_norms": parameters, "gradient_norms": gradients}
        found |= {name: {module: float(value) for module, value in group.items()} for name, group in norms.items()}
        found["batch"] = indices[indices >= 0].tolist()
        return Diverged(f"epoch {epoch}, step {at.step + 1}: loss {found['loss']}, or its gradient, is not finite", found)
