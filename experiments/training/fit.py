"""The loop over the epochs of a run, from any position to its end."""

import math
import time

import jax
import numpy as np

from experiments.data.corpus import Corpus, Split
from experiments.machine import processes
from experiments.machine.stopping import Signals
from experiments.settings import Config
from experiments.storage.record import Record
from experiments.training import steps
from experiments.training.divergence import Diverged
from experiments.training.evaluation import Evaluation, compiled
from experiments.training.metrics import Progress
from experiments.training.position import Position, best_row

_CALL_SECONDS = 1.0  # duration of a compiled call: long against the cost of a call, short enough for a progress line


class Epochs:
    """The compiled training program, and the batches of each epoch.

    Args:
      plan: What the program is compiled for.
      state: A state of the run, for its shapes.
      split: The training split.

    Attributes:
      steps: The number of steps in an epoch.
      compile_seconds: The duration of the compilation.
    """

    def __init__(self, plan: steps.Plan, state: steps.State, split: Split):
        self._plan, self._split = plan, split
        batches = self.batches(state, 1)
        self.steps = batches.labels.shape[0]
        self._train, self.compile_seconds = compiled(steps.train, plan, state, self.zero(), batches, 0, 1)

    def call(
        self, state: steps.State, sums: steps.Sums, batches: steps.Batches, first: int, last: int
    ) -> tuple[steps.State, steps.Sums, int]:
        """Runs the steps of an epoch from `first` to before `last`, and waits for them. See `steps.train`."""
        state, sums, bad = jax.block_until_ready(self._train(state, sums, batches, first, last))
        return state, sums, int(bad)

    def batches(self, state: steps.State, epoch: int) -> steps.Batches:
        """Returns the batches of an epoch, which is counted from 1."""
        return self._plan.batches(self._split.tokens, self._split.labels, self.order(state, epoch))

    def order(self, state: steps.State, epoch: int) -> np.ndarray:
        """Returns the indices of the examples in the batches of an epoch; see `steps.epoch_order`."""
        return np.asarray(steps.epoch_order(self._plan, state.rng, epoch - 1, len(self._split.labels)))

    def zero(self) -> steps.Sums:
        """Returns the sums over no examples."""
        return self._plan.replicate(steps.Sums.zero())


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
    """

    def __init__(self, config: Config, plan: steps.Plan, corpus: Corpus, position: Position, signals: Signals):
        self.position = position
        self._config, self._signals = config, signals
        self._evaluate = Evaluation(plan, corpus.validation, signals)
        self._plan, self._split, self._steps_per_call = plan, corpus.train, config.steps_per_call or 1

    def run(self, record: Record, progress: Progress) -> None:
        """Trains all epochs that are left.

        Raises:
          Stopped: A signal has come. `position` is not saved yet.
          Diverged: A loss or a gradient is not finite. `position` is the one before that step.
          OSError: Metrics or checkpoints cannot be written.
        """
        self._signals.defer(together=processes.count() > 1)
        if self.finished():
            return
        progress.start()
        epochs = self._signals.abandonable(Epochs, self._plan, self.position.state, self._split)
        self.position = self.position._replace(compile_seconds=self.position.compile_seconds + epochs.compile_seconds)
        started, before = time.monotonic(), len(self.position.rows)
        while not self.finished():
            self.train_epoch(epochs, record, progress)
            self._end_epoch(epochs, record)
            rows = self.position.rows
            seconds = (time.monotonic() - started) / (len(rows) - before)
            progress.epoch(rows[-1], 0.0 if self.finished() else seconds * (self._config.epochs - len(rows)))

    def finished(self) -> bool:
        """Returns whether the last epoch has ended, or whether `config.patience` epochs have not been better than the best."""
        rows, patience = self.position.rows, self._config.patience
        if not rows:
            return False
        too_long = patience is not None and len(rows) - best_row(rows)["epoch"] >= patience
        return too_long or len(rows) >= self._config.epochs

    def train_epoch(self, epochs: Epochs, record: Record, progress: Progress) -> None:
        """Runs the steps that are left of the current epoch."""
        epoch = len(self.position.rows) + 1
        batches = jax.block_until_ready(epochs.batches(self.position.state, epoch))
        while self.position.done < epochs.steps:
            done, seconds = self._call(epochs, batches)
            at = self.position
            # All processes stop, save and run the next call together.
            stop, due, seconds = processes.agree(self._signals.received is not None, record.due(at), seconds)
            if self._config.steps_per_call is None:
                self._steps_per_call = max(1, round(_CALL_SECONDS * done / seconds))
            if at.seconds >= _CALL_SECONDS or at.done == epochs.steps:
                # The first call alone is too short to tell.
                progress.estimate(at.seconds / at.done * epochs.steps, self._config.epochs - len(at.rows))
            progress.update(epoch, at.done, epochs.steps, at.sums, at.seconds)
            self._signals.stop_if(stop)
            if due:
                record.try_to_save(at)

    def _call(self, epochs: Epochs, batches: steps.Batches) -> tuple[int, float]:
        """Runs the next steps of an epoch in one call. Returns their number and their seconds."""
        at, every = self.position, self._config.checkpoint_every
        last = min(at.done + self._steps_per_call, epochs.steps)
        if every is not None:
            last = min(last, at.done + every - at.step % every)
        started = time.monotonic()
        state, sums, bad = self._signals.finish(epochs.call, at.state, at.sums, batches, at.done, last)
        seconds = time.monotonic() - started
        self.position = at._replace(state=state, sums=sums, done=last if bad < 0 else bad, seconds=at.seconds + seconds)
        if bad >= 0:
            raise self._diverged(epochs, batches)
        return last - at.done, seconds

    def _end_epoch(self, epochs: Epochs, record: Record) -> None:
        """Evaluates the validation split and adds the row of the epoch."""
        at, compiled_before = self.position, self._evaluate.compile_seconds
        val_loss, val_accuracy = self._evaluate(at.state.params)
        loss, accuracy = at.sums.means()
        row = {
            "epoch": len(at.rows) + 1,
            "step": at.step,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "examples_per_second": int(at.sums.examples) / at.seconds,
            "real_tokens_per_second": int(at.sums.tokens) / at.seconds,
            "step_milliseconds": 1e3 * at.seconds / epochs.steps,
            "compile_seconds": at.compile_seconds + self._evaluate.compile_seconds - compiled_before,
        }
        if not all(map(math.isfinite, (loss, val_loss))):
            found = {"epoch": row["epoch"], "step": at.step, "loss": loss, "val_loss": val_loss}
            raise Diverged(f"epoch {row['epoch']}: loss {loss}, val_loss {val_loss}", found)
        record.row(row)
        self.position = at.with_row(row, epochs.zero())

    def _diverged(self, epochs: Epochs, batches: steps.Batches) -> Diverged:
        """Returns the error of the next step, whose loss or gradient is not finite."""
        at, epoch = self.position, len(self.position.rows) + 1
        loss, parameters, gradients = jax.device_get(steps.norms(self._plan, at.state, steps.at(batches, at.done)))
        indices = epochs.order(at.state, epoch)[at.done]
        found = {"epoch": epoch, "step": at.step + 1, "loss": float(loss)}
        norms = {"parameter_norms": parameters, "gradient_norms": gradients}
        found |= {name: {module: float(value) for module, value in group.items()} for name, group in norms.items()}
        found["batch"] = indices[indices >= 0].tolist()
        return Diverged(f"epoch {epoch}, step {at.step + 1}: loss {found['loss']}, or its gradient, is not finite", found)
