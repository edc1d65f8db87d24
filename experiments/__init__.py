"""Experiments on attention: they turn configs into trained models and curves. Run as `python -m experiments COMMAND`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.storage.run_folder import Run


def load(workdir: str | Path) -> "Run":
    """Loads the config, model, parameters and tokenizer of a finished run; see `experiments.storage.run_folder.load`.

    Example:
      run = experiments.load("runs/a")
      tokens = run.tokenizer.pad([run.tokenizer.encode(b"the film was lovely").ids])
      logits = run.model.apply({"params": run.params}, tokens.astype("int32"))
    """
    from experiments.storage import run_folder  # imported here so that importing the package takes no time

    return run_folder.load(workdir)
