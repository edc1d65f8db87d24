"""Experiments on attention: configs in, curves out. Effects live here; run as `python -m experiments COMMAND`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.run_folder import Run


def load(workdir: str | Path) -> "Run":
    """The config, model, parameters and tokenizer of a finished run; see `experiments.run_folder.load`."""
    from experiments import run_folder  # here, so that importing the package costs nothing

    return run_folder.load(workdir)
