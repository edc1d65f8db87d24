"""Where an attempt at a run starts: at the newest valid checkpoint of its folder, or at the beginning."""

from pathlib import Path
from typing import Any

from experiments.data.corpus import Corpus
from experiments.errors import DataError, UsageError
from experiments.machine import processes
from experiments.settings import Config
from experiments.storage import checkpoints, run_folder
from experiments.storage.checkpoints import Checkpoint
from experiments.training import position, steps
from experiments.training.position import Position


def start(config: Config, plan: steps.Plan, corpus: Corpus, workdir: Path) -> Position:
    """Returns the position of the newest valid checkpoint, or that of a new run. Damaged checkpoints are moved aside.

    Every process must call it, and see the run folder.

    Raises:
      UsageError: The checkpoint is of another config, or has more epochs.
      DataError: The checkpoint is of another corpus, or there are checkpoints and none is valid.
    """
    found = processes.by_writer(lambda: checkpoints.newest(workdir, "last", aside=True))
    [step] = processes.from_writer([found.step if found else -1])
    if step < 0:
        if (workdir / run_folder.RESULT).exists():
            raise DataError(f"--workdir={workdir} holds a finished run without its checkpoints: choose another folder")
        return position.initial(plan, config)
    found = found or checkpoints.read(workdir, "last", step)
    _check(config, corpus, workdir, found)
    best_step = found.meta["best_step"]
    best = None if best_step is None else _best_params(workdir, best_step)
    return position.restored(plan, config, found.arrays, found.meta, best)


def _check(config: Config, corpus: Corpus, workdir: Path, found: Checkpoint) -> None:
    run_folder.refuse_other_checkpoint(workdir, config, found.meta)
    if config.epochs < len(found.meta["rows"]):
        done = len(found.meta["rows"])
        raise UsageError(f"config.epochs={config.epochs} must be at least {done}: so many are done in {workdir}")
    run_folder.refuse_other_corpus(workdir, config, found.meta["corpus_sha256"], corpus)


def _best_params(workdir: Path, step: int) -> Any:
    """Returns the parameters of the best epoch, or None if they are damaged."""

    def read() -> Any:
        try:
            return checkpoints.read(workdir, "best", step).arrays["params"]
        except DataError as error:
            checkpoints.set_aside(workdir, "best", step, str(error), "a better epoch will replace it")
            return None

    params = processes.by_writer(read)
    [valid] = processes.from_writer([params is not None])
    return params or (checkpoints.read(workdir, "best", step).arrays["params"] if valid else None)
