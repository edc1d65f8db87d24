"""The section on curves, with the deviation from published ones."""

from collections.abc import Mapping, Sequence

from experiments.report import charts, published
from experiments.report.document import UNKNOWN, Block, Cell, Figures, Section, Table, Text
from experiments.report.groups import Group
from experiments.report.published import Curve, Deviation
from experiments.storage.names import CURVES

_COLUMNS = tuple(charts.TITLES[column].partition(",")[0] for column in CURVES)


def curves(all_groups: Sequence[Group], colours: Mapping[str, int], curves: Mapping[str, Curve]) -> Section:
    """Returns the curves of all groups, and the published ones over them."""
    legend = [(colours[group.name], group.name) for group in all_groups if colours[group.name]]
    if len(legend) < len(all_groups):
        legend.append((0, f"the means of {len(all_groups) - len(legend)} other groups"))
    note = "Line: mean of the finished seeds. Dark band: ± standard deviation. Light band: lowest to highest seed."
    if any(run.state != "finished" and run.rows for group in all_groups for run in group.runs):
        note += " Dotted: a run that is not finished."
    if curves:
        note += " Dashed: published."
    if any(len({len(run.rows) for run in group.finished.values()}) > 1 for group in all_groups):
        note += " Where seeds have stopped early, the others alone are meant."
    blocks: list[Block] = [Figures(charts.curves(all_groups, colours, curves), legend, note)]
    matched = [group for group in all_groups if group.label in curves and group.finished and colours[group.name]]
    if matched:
        blocks += _published(matched, curves, colours)
    if alone := sorted(curves.keys() - {group.label for group in all_groups if group.finished}):
        blocks.append(Text(f"Published, but no finished run has this label: {', '.join(alone)}."))
    return Section("curves", "Curves", blocks)


def _published(matched: Sequence[Group], curves: Mapping[str, Curve], colours: Mapping[str, int]) -> list[Block]:
    """Returns how far groups are from the curves that are published for their labels: at most, and at each epoch."""
    rows, folded = [], []
    for group in matched:
        runs = [run.rows for run in group.finished.values()]
        by_metric = {column: published.deviations(curves[group.label], runs, column) for column in CURVES}
        rows.append([group.name, *(_largest(found) for found in by_metric.values())])
        cells = {(each.epoch, column): _deviation(each) for column, found in by_metric.items() for each in found}
        by_epoch = [
            [str(epoch), *(cells.get((epoch, column), UNKNOWN) for column in CURVES)]
            for epoch in sorted({epoch for epoch, _ in cells})
        ]
        header = ["epoch", *_COLUMNS]
        folded.append(Table(header, by_epoch, folded=f"{group.name}: the deviation from the published curve at each epoch"))
    said = "The published curves are those of the labels. The largest deviation of the mean of our seeds from them, its epoch, "
    said += "and at how many epochs the published value is in the range of our seeds:"
    return [Text(said), Table(["group", *_COLUMNS], rows, keys=[colours[group.name] for group in matched]), *folded]


def _largest(found: Sequence[Deviation]) -> Cell:
    if not found:
        return UNKNOWN
    far = max(found, key=lambda each: abs(each.difference))
    inside = sum(each.inside for each in found)
    return f"{far.difference:+.4f}", f"epoch {far.epoch}", f"inside at {inside} of {len(found)}"


def _deviation(found: Deviation) -> Cell:
    return f"{found.difference:+.4f}", f"ours {found.ours.mean:.4f}", f"published {found.published:.4f}"
