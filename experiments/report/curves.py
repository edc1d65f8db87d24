"""Draws the curves of finished runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report import figure_files

Rows = Sequence[Mapping[str, Any]]  # of one run, one row per epoch
PANELS = {
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "val_loss": "validation loss",
    "val_accuracy": "validation accuracy",
}
COLOURS = (
    "#4477AA",
    "#EE6677",
    "#228833",
    "#AA3377",
    "#CCBB44",
    "#66CCEE",
)  # Paul Tol's bright scheme, safe for colour-blind readers
GREY = "#BBBBBB"
_SHOWN = "val_accuracy"  # in `draw_lines`
_LINE = 0.04  # the height of a line of text there, in accuracy


def draw_curves(folder: Path, runs: Mapping[str, Sequence[Rows]], blog: Mapping[str, Rows] | None = None) -> None:
    """Draws `curves.png` and `curves.svg`: loss and accuracy by epoch, on the training and the validation split.

    Each model has a line, the mean over its runs, and a band from their minimum to their maximum.

    Args:
      folder: Where the files are written.
      runs: The runs of each model. The keys are the names in the legend.
      blog: The curves of the blog post by model, drawn dashed, or None.
    """
    figure_files.save(curves_figure(runs, blog), folder / "curves")


def curves_figure(runs: Mapping[str, Sequence[Rows]], blog: Mapping[str, Rows] | None = None) -> Figure:
    """Returns the figure that `draw_curves` writes."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for index, (model, seeds) in enumerate(runs.items()):
            colour = COLOURS[index % len(COLOURS)]
            _draw_model(
                axes, colour, model, column, seeds, width=max(1.2, 3.2 - 0.6 * index)
            )  # so that equal curves stay visible
            if blog and model in blog:
                axes.plot(*_curve(blog[model], column), "--", color=colour, linewidth=1.2, dashes=(4, 2))
        axes.set(title=title, xlabel="epoch", ylabel="nats" if column.endswith("loss") else "share of reviews")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
    legend = figure.axes[0]
    if blog:
        legend.plot([], [], "--", color="black", linewidth=1.2, label="the blog")
    legend.legend(frameon=False)
    return figure


def draw_lines(folder: Path, title: str, rising: Mapping[str, Rows], flat: Sequence[Rows], note: str) -> None:
    """Draws `curves.png` and `curves.svg`: validation accuracy by epoch, each line named beside its end.

    Args:
      folder: Where the files are written.
      title: The title of the figure.
      rising: The runs that learn, by name.
      flat: The runs that do not. Their lines lie on top of each other and are drawn alike.
      note: The text beside the flat lines.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for rows in flat:
        axes.plot(*_curve(rows, _SHOWN), color=GREY, linewidth=5)
    _name_line(axes, note, flat[0], flat[0][-1][_SHOWN], "#555555")
    heights = _apart([rows[-1][_SHOWN] for rows in rising.values()])
    for colour, height, (name, rows) in zip(COLOURS, heights, rising.items(), strict=False):
        axes.plot(*_curve(rows, _SHOWN), color=colour, linewidth=2, marker="o" if len(rows) == 1 else None)
        _name_line(axes, f"{name}: {rows[-1][_SHOWN]:.3f}", rows, height, colour)
    axes.set(title=title, xlabel="epoch", ylabel="validation accuracy", ylim=(0.4, 1.02))
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    figure_files.save(figure, folder / "curves")


def _name_line(axes: Axes, text: str, rows: Rows, height: float, colour: str) -> None:
    end = rows[-1]["epoch"], height
    axes.annotate(text, end, (8, 0), textcoords="offset points", color=colour, va="center", annotation_clip=False)


def _apart(heights: Sequence[float]) -> list[float]:
    """Returns the heights of labels, lowered where two of them would be less than a line of text apart."""
    placed: dict[int, float] = {}
    for index in sorted(range(len(heights)), key=heights.__getitem__, reverse=True):
        placed[index] = min([heights[index], *(height - _LINE for height in placed.values())])
    return [placed[index] for index in range(len(heights))]


def _draw_model(axes: Axes, colour: str, model: str, column: str, seeds: Sequence[Rows], width: float) -> None:
    epochs = _curve(seeds[0], column)[0]
    values = np.array([_curve(rows, column)[1] for rows in seeds])
    single = len(epochs) == 1  # because a line of one point is invisible
    axes.plot(epochs, values.mean(0), color=colour, linewidth=width, label=model, marker="o" if single else None)
    if len(seeds) > 1:
        axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)


def _curve(rows: Rows, column: str) -> tuple[list[int], list[float]]:
    return [row["epoch"] for row in rows], [row[column] for row in rows]
