"""The section on labels: what is right label by label, what is taken for what, and how far probabilities can be believed."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report import matrix, measured
from experiments.report.document import UNKNOWN, Figures, Section, Table, Text
from experiments.report.groups import Group
from experiments.report.measured import Measures
from experiments.report.statistics import summary

_COLUMNS = 20  # labels up to which each has a column and a row in the picture
_SAID = (
    "Of the last parameters on the test split, mean ± standard deviation over the seeds (n). Macro F1 is the mean of the F1 of "
    "the labels. ECE is the expected calibration error: how far the probability of the predicted label is from the share of "
    "predictions that are right, in 15 bins. The other columns are recalls: of the texts with this label, the share that the "
    "model gave it."
)
_NOTE = "Texts of all seeds by label and predicted label. Each row is divided by its sum; the numbers are percent."


def sections(all_groups: Sequence[Group], colours: Mapping[str, int]) -> list[Section]:
    """Returns the section; nothing if no run has measures by label, as those from before they were written."""
    found = {group.name: measures for group in all_groups if (measures := _measures(group))}
    if not found:
        return []
    blocks: list[Text | Table | Figures] = [Text(_SAID)]
    for labels in dict.fromkeys(tuple(measures[0].recall) for measures in found.values()):  # groups of the same data
        alike = {name: measures for name, measures in found.items() if tuple(measures[0].recall) == labels}
        blocks.append(_table(labels, alike, colours))
        shown = {name: counts for name, counts in _confusions(alike).items() if colours[name]}
        if 2 < len(labels) <= _COLUMNS and shown:  # of two labels, the two recalls say it all
            drawn = [matrix.heat_map(f"confusion-{colours[name]}", labels, counts) for name, counts in shown.items()]
            blocks.append(Figures(drawn, [(colours[name], name) for name in shown], _NOTE))
    return [Section("labels", "Labels", blocks)]


def _measures(group: Group) -> list[Measures]:
    """The measures of the finished runs of a group that has some, of the same labels as its first one."""
    each = [found for run in group.finished.values() if (found := measured.of(run.result))]
    return [measures for measures in each if list(measures.recall) == list(each[0].recall)]


def _table(labels: Sequence[str], found: Mapping[str, Sequence[Measures]], colours: Mapping[str, int]) -> Table:
    columns = labels if len(labels) <= _COLUMNS else ()
    rows = []
    for name, measures in found.items():
        recalls = [[value for each in measures if (value := each.recall[label]) is not None] for label in columns]
        numbers = [[each.macro_f1 for each in measures], [each.ece for each in measures], *recalls]
        rows.append([name, *map(_cell, numbers)])
    return Table(["group", "macro F1", "ECE", *columns], rows, keys=[colours[name] for name in found])


def _cell(values: Sequence[float]) -> str:
    if (found := summary(values)) is None:
        return UNKNOWN
    spread = "" if found.sd is None else f" ± {found.sd:.4f}"
    return f"{found.mean:.4f}{spread} ({found.n})"


def _confusions(found: Mapping[str, Sequence[Measures]]) -> dict[str, np.ndarray]:
    """The sums over the seeds, of the groups of which each run has one."""
    each = {name: [one.confusion for one in measures if one.confusion is not None] for name, measures in found.items()}
    return {name: np.sum(counts, 0) for name, counts in each.items() if len(counts) == len(found[name])}
