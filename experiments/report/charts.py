"""The figures of a report: the curves of groups with their bands, and the ablation of heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import svg
from experiments.report.groups import Group
from experiments.report.published import Curve
from experiments.storage.names import CURVES

TITLES = {
    "train_loss": "training loss, nats",
    "train_accuracy": "training accuracy",
    "val_loss": "validation loss, nats",
    "val_accuracy": "validation accuracy",
}
Colours = Mapping[str, int]  # of groups by name; 0 is grey


def curves(groups: Sequence[Group], colours: Colours, published: Mapping[str, Curve]) -> list[str]:
    """Returns a chart for each metric: for each group the mean of its seeds, their standard deviation and their range.

    Groups in grey have their means only. Runs that are not finished are dotted.
    """
    return [_panel(column, groups, colours, published) for column in CURVES]


def _panel(column: str, groups: Sequence[Group], colours: Colours, published: Mapping[str, Curve]) -> str:
    marks: list[svg.Line | svg.Band | svg.Dots] = []
    for group in sorted(groups, key=lambda group: colours[group.name] > 0):  # the coloured ones above the grey ones
        marks += _of_group(group, colours[group.name], column)
    marks += _of_published(column, groups, colours, published)
    lines = [mark for mark in marks if isinstance(mark, svg.Line)]
    settled = [y for mark in lines if mark.style != "unfinished" for _, y in mark.points]
    settled += [y for mark in marks if isinstance(mark, svg.Band) for _, low, high in mark.points for y in (low, high)]
    heights = settled or [y for mark in lines for _, y in mark.points] or [0.0, 1.0]
    last = max([x for mark in lines for x, _ in mark.points] or [1.0])
    first = min(1.0, *(x for mark in lines for x, _ in mark.points), last)
    description = f"{TITLES[column]} by epoch, of {len(groups)} group{'s' if len(groups) > 1 else ''}"
    ends = (first, max(last, first + 1))
    axes = svg.Axes(f"chart-{column}", TITLES[column], description, "epoch", ends, svg.around(heights))
    return svg.chart(axes, marks)


def _of_published(
    column: str, groups: Sequence[Group], colours: Colours, published: Mapping[str, Curve]
) -> list[svg.Line | svg.Band | svg.Dots]:
    """The published curve of each label that is shown: in the colour of its group, or in grey if there are several."""
    marks: list[svg.Line | svg.Band | svg.Dots] = []
    for label in sorted(published.keys() & {group.label for group in groups}):
        shown = [colours[group.name] for group in groups if group.label == label and colours[group.name]]
        points = [(epoch, values[column]) for epoch, values in sorted(published[label].items()) if column in values]
        if shown:
            marks.append(svg.Line(points, shown[0] if len(shown) == 1 else 0, f"{label}, published", "published"))
    return marks


def _of_group(group: Group, colour: int, column: str) -> list[svg.Line | svg.Band | svg.Dots]:
    finished = [[row[column] for row in run.rows] for run in group.finished.values()]
    marks: list[svg.Line | svg.Band | svg.Dots] = []
    if finished:
        low, high, mean, sd = over_seeds(finished)
        epochs = range(1, len(mean) + 1)
        if colour and len(finished) > 1:
            marks.append(svg.Band(list(zip(epochs, low, high, strict=True)), colour, "range"))
            marks.append(svg.Band(list(zip(epochs, mean - sd, mean + sd, strict=True)), colour, "spread"))
        style = "mean" if colour else "other"
        marks.append(svg.Line(list(zip(epochs, mean, strict=True)), colour, group.name, style, number=bool(colour)))
    for run in group.runs:
        if run.state != "finished" and run.rows and colour:
            points = [(row["epoch"], row[column]) for row in run.rows]
            marks.append(svg.Line(points, colour, f"{group.name}, seed {run.config['seed']}, {run.state}", "unfinished"))
    return marks


def over_seeds(curves: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the minimum, maximum, mean and standard deviation at each epoch, over the seeds that came so far.

    The deviation is 0 where only one did.
    """
    values = np.full((len(curves), max(map(len, curves))), np.nan)
    for row, curve in zip(values, curves, strict=True):
        row[: len(curve)] = curve
    counts = (~np.isnan(values)).sum(0)
    mean = np.nansum(values, 0) / counts
    squares = np.nansum((values - mean) ** 2, 0)
    return np.nanmin(values, 0), np.nanmax(values, 0), mean, np.sqrt(squares / np.maximum(1, counts - 1))


def heads(series: Sequence[tuple[int, str, Sequence[Any]]], metrics: Mapping[str, str]) -> list[str]:
    """Returns a chart for each metric against the number of heads.

    Args:
      series: The number of the colour, the name and the points of each line; a point has `heads` and its `numbers` by metric:
        the value with the ends of its whisker, or None.
      metrics: The titles of the charts by metric.
    """
    counts = sorted({point.heads for _, _, points in series for point in points})
    places = {count: index for index, count in enumerate(counts)}
    charts = []
    for metric, title in metrics.items():
        marks: list[svg.Line | svg.Band | svg.Dots] = []
        for colour, name, points in series:
            dots = [(places[point.heads], *point.numbers[metric]) for point in points if point.numbers[metric]]
            if name and len({at for at, *_ in dots}) == len(dots):
                marks.append(svg.Line([(at, middle) for at, middle, *_ in dots], colour, name, "mean", number=len(series) > 1))
            marks.append(svg.Dots(dots, colour, name))
        heights = [y for mark in marks if isinstance(mark, svg.Dots) for _, *ys in mark.points for y in ys]
        if heights:
            ends = (-0.3, len(counts) - 0.7)
            ticks = [(float(index), str(count)) for count, index in places.items()]
            description = f"{title} against the number of heads: {', '.join(map(str, counts))}"
            axes = svg.Axes(f"heads-{metric}", title, description, "num_heads", ends, svg.around(heights), ticks)
            charts.append(svg.chart(axes, marks))
    return charts
