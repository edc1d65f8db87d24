"""A training whose loss or gradient is not finite."""

import math
from pathlib import Path
from typing import Any

from experiments.errors import Refusal
from experiments.storage import files

FILE = "diverged.json"


class Diverged(Refusal):
    """A loss or a gradient is not finite.

    Args:
      message: What happened, in one line.
      found: What is known of the step: its number, counted from 1, the indices of its examples in the training split, its loss,
        and the norm of each module's parameters before it and of their gradients.
    """

    exit_code = 3

    def __init__(self, message: str, found: dict[str, Any]):
        super().__init__(message)
        self.found = found

    def at(self, where: str) -> "Diverged":
        """Returns the same with a longer message."""
        return Diverged(f"{self}{where}", self.found)


def write(workdir: Path, error: Diverged) -> None:
    """Writes what is known of the step to `diverged.json`, where NaN and infinities are strings, as JSON has none."""
    files.write_json(workdir / FILE, _without_nan(error.found))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
