"""Draws the confusion matrix of a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.report import figure_files

_NUMBERED = 20  # classes up to which the cells have numbers
_NAME = 24  # characters of a name that are shown


def draw(folder: Path, classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Draws `confusion.png` and `confusion.svg`: the share of each class (rows) that was predicted as each class (columns).

    Args:
      folder: Where the files are written.
      classes: The names of the classes.
      confusion: Numbers of examples, `[C, C]`.
    """
    counts, size = np.asarray(confusion, float), len(classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 3.0 + 0.5 * size)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [name.replace("$", "\\$")[:_NAME] for name in classes]  # a dollar would begin a formula
    axes.set_xticks(range(size), names, rotation=90)
    axes.set_yticks(range(size), names)
    axes.set(xlabel="predicted", ylabel="label", title="test texts by label and predicted label")
    if size <= _NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            axes.text(
                column, row, f"{count:.0f}", ha="center", va="center", color="white" if shares[row, column] > 0.6 else "black"
            )
    figure.colorbar(image, ax=axes, label="share of the label's texts")
    figure_files.save(figure, folder / "confusion")
