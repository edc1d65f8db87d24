"""Writes the metrics of a run while it runs, to metrics.jsonl and to TensorBoard."""

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.storage import files, run_folder


class Metrics:
    """Writes one row per epoch to `metrics.jsonl` and to TensorBoard. A context manager.

    Both are written anew from the rows of the position where an attempt starts, so that they never hold later ones.

    Args:
      workdir: The run folder.
      rows: The rows so far.
      times: When each of them was written, in seconds since 1970.

    Raises:
      OSError: They cannot be written.
    """

    def __init__(self, workdir: Path, rows: Sequence[dict[str, Any]] = (), times: Sequence[float] = ()):
        self._folder, self._earlier = workdir / run_folder.BOARD, list(zip(rows, times, strict=True))
        files.write_whole(workdir / run_folder.METRICS, "".join(map(_line, rows)))
        self._file = (workdir / run_folder.METRICS).open("a")
        for events in self._folder.glob("events.*"):
            events.unlink()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._earlier or "_board" in vars(self):  # an attempt without a new row writes the earlier ones anew too
            self._board.close()

    @functools.cached_property
    def _board(self) -> Any:
        """Created with the first row."""
        board = summary_writer()(str(self._folder))
        for row, seconds in self._earlier:
            _add_scalars(board, row, seconds)
        return board

    def write(self, row: dict[str, Any]) -> None:
        """Writes the row of an epoch and flushes it."""
        self._file.write(_line(row))
        self._file.flush()
        _add_scalars(self._board, row)


def summary_writer() -> Any:
    """Returns the class tensorboardX.SummaryWriter, imported without PyTorch, which takes longer to import than all else.

    tensorboardX imports PyTorch where it is installed, and does not need it for scalars.
    """
    hides = "torch" not in sys.modules
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]  # `import torch` then finds no module
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hides:
            del sys.modules["torch"]
    return SummaryWriter


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _add_scalars(board: Any, row: dict[str, Any], seconds: float | None = None) -> None:
    for name, value in row.items():
        if name not in ("epoch", "step"):
            board.add_scalar(name, value, row["epoch"], walltime=seconds)
