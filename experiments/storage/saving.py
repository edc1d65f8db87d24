"""When a run is saved: every so many steps, or as often as saving takes a hundredth of the time."""

import shutil
import time
from pathlib import Path

import jax

from experiments.data.corpus import Corpus
from experiments.errors import Refusal, warn
from experiments.settings import Config
from experiments.storage import checkpoints
from experiments.storage.lock import Held
from experiments.storage.provenance import Attempt
from experiments.training import position
from experiments.training.position import Position

_SHARE = 0.01  # of the time
_LEAST_SECONDS = 2.0  # between two checkpoints, so that a run of small steps does not wear out its disk
_FAILURES = 3  # in a row, after which a run ends
_ROOM = 3  # checkpoints of each kind: two are kept while the next one is written


class Saver:
    """Saves the positions of a run.

    Args:
      held: The lock of the run folder.
      config: The config of the run.
      corpus: Its corpus.
      attempt: Records which step was saved.
      restored: The position from which this attempt has started.
      runs: How many runs are trained together, of which each saves in its part of the time.
    """

    def __init__(self, held: Held, config: Config, corpus: Corpus, attempt: Attempt, restored: Position, runs: int = 1):
        self._held, self._workdir, self._share = held, held.workdir, _SHARE / runs
        self._config, self._corpus, self._attempt = config, corpus, attempt
        self._next = 0.0  # when a checkpoint is due; the first one after the first call
        self._saved = (restored.step, len(restored.rows)) if restored.step else None
        self._failures = 0
        self._prune(restored)

    def due(self, at: Position) -> bool:
        """Returns whether a position is to be saved."""
        every = self._config.checkpoint_every
        return time.monotonic() >= self._next if every is None else at.step % every == 0

    def save(self, at: Position) -> None:
        """Saves a position, unless it is the one that was saved last.

        Raises:
          OSError: It cannot be written.
          Refusal: The folder was removed or replaced.
        """
        if self._saved == (at.step, len(at.rows)):
            return
        self._held.check()
        checkpoints.import_orbax()  # takes longer than a save
        started = time.monotonic()
        meta = position.meta_of(at, self._config, self._corpus)
        if at.best and at.best.params is not None and at.best.step not in checkpoints.steps_of(self._workdir, "best"):
            checkpoints.save(self._workdir, "best", at.best.step, {"params": at.best.params}, meta)
        checkpoints.save(self._workdir, "last", at.step, position.arrays_of(at), meta)
        self._prune(at)
        self._attempt.saved(at.step)
        self._saved, self._failures = (at.step, len(at.rows)), 0
        ended = time.monotonic()
        self._next = ended + max(_LEAST_SECONDS, (ended - started) / self._share)

    def try_to_save(self, at: Position) -> None:
        """Saves a position; says on stderr if that fails. Raises OSError after the third failure in a row."""
        try:
            self.save(at)
        except OSError as error:
            self._failures += 1
            self._next = time.monotonic() + _LEAST_SECONDS
            if self._failures == _FAILURES:
                raise OSError(f"no checkpoint can be saved: {error}") from None
            warn(f"the checkpoint of step {at.step} is not saved, training goes on: {error}")

    def _prune(self, at: Position) -> None:
        """Keeps the newest two of each kind. Later ones are of a future that was given up, for example on other devices."""
        for kind in checkpoints.KINDS:
            earlier = [step for step in checkpoints.steps_of(self._workdir, kind) if step <= at.step]
            checkpoints.keep(self._workdir, kind, set(earlier[-2:]))


def check_room(workdir: Path, at: Position, runs: int = 1) -> None:
    """Refuses a disk without room for the checkpoints of the runs. Raises Refusal with the bytes that are needed and free."""
    params, optimizer = (sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (at.state.params, at.state.optimizer))
    one = 2 * params + optimizer  # one of each kind
    there = sum(path.stat().st_size for path in (workdir / checkpoints.FOLDER).rglob("*") if path.is_file())
    needed, free = runs * max(one, _ROOM * one - there), shutil.disk_usage(workdir).free
    if free < needed:
        raise Refusal(
            f"--workdir={workdir}: {needed / 1e6:.1f} MB are needed for checkpoints, and {free / 1e6:.1f} MB are free"
        )
