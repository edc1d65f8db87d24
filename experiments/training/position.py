"""Where a training is: all that it needs to go on, and how that becomes a checkpoint and comes back."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import settings
from experiments.data.corpus import Corpus
from experiments.errors import DataError
from experiments.settings import Config
from experiments.training import build, steps


class Best(NamedTuple):
    """The best epoch so far: the number of steps after it, and its parameters as NumPy arrays, or None if they were damaged."""

    step: int
    params: Any


class Position(NamedTuple):
    """A position in a training.

    Attributes:
      state: The state of the compiled step.
      sums: The sums over the steps of the current epoch.
      done: The number of steps done in the current epoch, which is the one after the rows.
      rows: The rows of the finished epochs.
      times: When each row was written, in seconds since 1970.
      seconds: The seconds of the steps of the current epoch.
      compile_seconds: The seconds of compilation in the current epoch.
      best: The best epoch so far, or None before the first.
    """

    state: steps.State
    sums: steps.Sums
    done: int
    rows: tuple[dict[str, Any], ...]
    times: tuple[float, ...]
    seconds: float
    compile_seconds: float
    best: Best | None

    @property
    def step(self) -> int:
        """The number of steps since the start of the run."""
        return int(self.state.step)

    def with_row(self, row: dict[str, Any], zero: steps.Sums) -> "Position":
        """Returns the position at the start of the next epoch. `row` is that of the epoch which has ended."""
        best = self.best
        if not self.rows or _quality(row) > max(map(_quality, self.rows)):
            best = Best(self.step, jax.tree.map(np.array, self.state.params))  # a copy: the step reuses the memory
        return Position(self.state, zero, 0, (*self.rows, row), (*self.times, time.time()), 0.0, 0.0, best)


def _quality(row: dict[str, Any]) -> tuple[float, float]:
    return row["val_accuracy"], -row["val_loss"]


def best_row(rows: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Returns the first row with the highest validation accuracy, and of those the one with the lowest loss."""
    return max(rows, key=_quality)


def initial(plan: steps.Plan, config: Config) -> Position:
    """Returns the position at the start of a run."""
    state = plan.replicate(initial_state(plan, config))
    return Position(state, plan.replicate(steps.Sums.zero()), 0, (), (), 0.0, 0.0, None)


def initial_state(plan: steps.Plan, config: Config) -> steps.State:
    """Returns the state of a run before its first step."""
    return steps.initial_state(plan, jax.random.key(config.seed), build.scalars_of(config))


def arrays_of(position: Position) -> dict[str, Any]:
    """Returns what a checkpoint of kind "last" keeps as arrays."""
    state = position.state
    params = jax.tree.map(np.asarray, state.params)
    rest = (jax.tree.leaves(tree) for tree in (state.optimizer, position.sums))
    optimizer, sums = ([np.asarray(leaf) for leaf in leaves] for leaves in rest)
    return {"params": params, "optimizer": optimizer, "sums": sums, "step": np.asarray(state.step)}


def meta_of(position: Position, config: Config, corpus: Corpus) -> dict[str, Any]:
    """Returns what a checkpoint keeps beside its arrays: the config, the corpus, the rows, and the place in the epoch."""
    return {
        "config": settings.flatten(config),
        "corpus_sha256": corpus.sha256,
        "words_sha256": corpus.tokenizer.sha256,
        **corpus.tokenizer.sizes,
        "classes": corpus.classes,
        "done": position.done,
        "rows": position.rows,
        "times": position.times,
        "seconds": position.seconds,
        "compile_seconds": position.compile_seconds,
        "best_step": position.best and position.best.step,
    }


def restored(plan: steps.Plan, config: Config, arrays: Any, meta: dict[str, Any], best_params: Any) -> Position:
    """Returns the position of a checkpoint.

    Args:
      plan: The plan of the run, over any number of devices.
      config: The config of the run.
      arrays: The arrays of the checkpoint; see `arrays_of`.
      meta: What was saved with them; see `meta_of`.
      best_params: The parameters of the best epoch, or None if they were damaged.

    Raises:
      DataError: The arrays are not those of this model and optimizer.
    """
    shapes = jax.eval_shape(lambda: initial_state(plan, config))
    try:
        state = steps.State(
            jax.random.key(config.seed),
            jax.tree.map(np.float32, build.scalars_of(config)),
            arrays["step"],
            fitted(shapes.params, arrays["params"], "params"),
            fitted(shapes.optimizer, arrays["optimizer"], "optimizer"),
        )
        sums = fitted(jax.eval_shape(steps.Sums.zero), arrays["sums"], "sums")
        rows, times, step = tuple(meta["rows"]), tuple(meta["times"]), meta["best_step"]
        best = None if step is None else Best(step, best_params)
        place = meta["done"], rows, times, meta["seconds"], meta["compile_seconds"], best
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the checkpoint does not fit the model: {error}") from None
    return Position(plan.replicate(state), plan.replicate(sums), *place)


def fitted(shapes: Any, arrays: Any, name: str) -> Any:
    """Returns arrays in the tree of `shapes`. Raises ValueError if their number, a shape or a dtype differs."""
    wanted, found = jax.tree.leaves(shapes), jax.tree.leaves(arrays)
    if len(wanted) != len(found):
        raise ValueError(f"{name} has {len(found)} arrays, not {len(wanted)}")
    for old, new in zip(found, wanted, strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(f"{name} has {old.dtype}{list(old.shape)} where the model has {new.dtype}{list(new.shape)}")
    return jax.tree.unflatten(jax.tree.structure(shapes), found)
