"""Trains one run, from its start or from where an earlier attempt has stopped, and finishes it."""

from pathlib import Path
from typing import Any

from experiments.settings import Config
from experiments.training import together
from experiments.training.progress import Progress
from experiments.training.together import Member


def train(config: Config, workdir: Path, label: str, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a classifier, evaluates it on the test split once, and writes the run folder.

    An unfinished run in the folder is continued from its last checkpoint, and the result has the bits of a run that was never
    stopped. A finished one is returned as it is, or continued if the config has more epochs. Several processes may train one
    run: each of them calls this, and one writes.

    Args:
      config: The config of the run, checked here.
      workdir: The run folder, which all processes must see.
      label: The name of the run in its figure and in `result.json`: the page of `configs/`.
      progress: What shows the epochs; None prints a line for each.

    Returns:
      The content of `result.json`.

    Raises:
      UsageError: The config breaks a rule, the folder cannot be used, or it holds a run of another config.
      DataError: The corpus cannot be read, or no checkpoint of the run is valid.
      Busy: Another process writes to the folder.
      Diverged: A loss or a gradient is not finite.
      Stopped: SIGTERM, SIGINT or SIGUSR1. The run is saved.
      Refusal: The disk has no room for the checkpoints.
      OSError: A file cannot be written.
    """
    [outcome] = together.train([Member(config, workdir)], label, progress or Progress(config.epochs))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
