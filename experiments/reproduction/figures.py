"""The figure of the deviations: how far each curve lies from the others, epoch by epoch."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.report.curves import COLOURS, GREY, PANELS
from experiments.reproduction import statistics

_HIGHEST = 12.0  # the axis ends there at most; a larger deviation is drawn at its end


def deviations_figure(deviations: Mapping[str, np.ndarray]) -> Figure:
    """Returns a figure with a panel for each model and for each column of its curves.

    Args:
      deviations: What `statistics.deviations` gives for each model. The blog is drawn in colour, our seeds in grey.
    """
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    panels = figure.subplots(len(statistics.COLUMNS), len(deviations), squeeze=False, sharex="col", sharey=True)
    finite = np.concatenate([np.abs(values[np.isfinite(values)]) for values in deviations.values()])
    limit = min(1.1 * max(finite.max(initial=0), 2.0), _HIGHEST)
    for row, column in enumerate(statistics.COLUMNS):
        for index, (model, values) in enumerate(deviations.items()):
            _draw(panels[row, index], np.clip(values[:, :, row], -limit, limit), COLOURS[index % len(COLOURS)])
            if row == 0:
                panels[row, index].set_title(model)
        panels[row, 0].set(ylabel=f"{PANELS[column]}, deviation", ylim=(-limit, limit))
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, ncols=len(labels), loc="outside upper left")
    return figure


def _draw(axes: Axes, values: np.ndarray, colour: str) -> None:
    """Draws the deviations `[1 + n, epochs]` of a model."""
    blog, *seeds = values
    epochs, width = np.arange(1, len(blog) + 1), statistics.half_width(len(seeds))
    axes.fill_between(
        epochs[[0, -1]], -width, width, color="black", alpha=0.08, linewidth=0, label=f"{statistics.LEVEL:.0%} interval"
    )
    for number, seed in enumerate(seeds):
        axes.plot(epochs, seed, color=GREY, linewidth=0.8, label="" if number else "our seeds")
    axes.plot(epochs, blog, color=colour, linewidth=2, marker="o", markersize=3, label="the blog")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.grid(alpha=0.25)
