"""Curves that others have published, and how far ours are from them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import UsageError, first_line
from experiments.report import statistics
from experiments.storage.names import CURVES

Curve = Mapping[int, Mapping[str, float]]  # the metrics of each epoch


class Deviation(NamedTuple):
    """How far the mean of our seeds is from a published value.

    Attributes:
      epoch: The epoch.
      published: The published value.
      ours: Ours.
      inside: Whether the published value is in the range of our seeds.
    """

    epoch: int
    published: float
    ours: statistics.Summary
    inside: bool

    @property
    def difference(self) -> float:
        """Ours minus the published value."""
        return self.ours.mean - self.published


def read(path: Path) -> Mapping[str, Curve]:
    """Returns the curves of a CSV file by the names of their models.

    Its columns are `model`, `epoch` and at least one of CURVES; others are left out.

    Raises:
      UsageError: The file cannot be read, or a line of it breaks a rule.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            columns = set(lines.fieldnames or ())
            if not {"model", "epoch"} <= columns or columns.isdisjoint(CURVES):
                raise UsageError(f"--published={path} must have the columns model, epoch and some of {', '.join(CURVES)}")
            curves: dict[str, dict[int, dict[str, float]]] = {}
            for line in lines:
                epoch, values = _row(line, f"--published={path}, line {lines.line_num}")
                curve = curves.setdefault(line["model"], {})
                if epoch in curve:
                    raise UsageError(f"--published={path}, line {lines.line_num}: epoch {epoch} of this model is there twice")
                curve[epoch] = values
    except OSError as error:
        raise UsageError(f"--published={path} cannot be read: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise UsageError(f"--published={path} cannot be read: {first_line(error)}") from None
    return curves


def _row(line: Mapping[str, Any], where: str) -> tuple[int, dict[str, float]]:
    epoch, values = line["epoch"] or "", {}
    if not epoch.isdecimal() or not 1 <= len(epoch) <= 6:
        raise UsageError(f"{where}: epoch={epoch} must be an integer from 0 to 999999")
    for column in CURVES:
        if text := line.get(column):
            try:
                values[column] = float(text)
            except ValueError:
                values[column] = math.nan
            if not math.isfinite(values[column]):
                raise UsageError(f"{where}: {column}={text} must be a number")
    return int(epoch), values


def deviations(curve: Curve, runs: Sequence[Sequence[Mapping[str, Any]]], column: str) -> list[Deviation]:
    """Compares a published curve with ours, at each epoch that both have.

    Args:
      curve: The published curve.
      runs: The rows of our runs, one for each seed.
      column: The metric.
    """
    found = []
    for epoch, published in sorted(curve.items()):
        values = [rows[epoch - 1][column] for rows in runs if 1 <= epoch <= len(rows)]
        ours = statistics.summary(values)
        if ours and column in published:
            inside = min(values) <= published[column] <= max(values)
            found.append(Deviation(epoch, published[column], ours, inside))
    return found
