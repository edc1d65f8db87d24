"""What a report says: its sections in their order."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from experiments.report import compared, costs, labels, overview, results, svg
from experiments.report.document import Document
from experiments.report.groups import Group
from experiments.report.published import Curve
from experiments.report.runs import Run

STATES = ("finished", "running", "unfinished", "failed", "diverged", "damaged")


def document(runs: Sequence[Run], all_groups: Sequence[Group], baseline: Group | None, curves: Mapping[str, Curve]) -> Document:
    """Returns the report of some runs.

    Args:
      runs: All runs, also those whose config is damaged.
      all_groups: Their groups.
      baseline: The group that the others are compared with, or None if there is no group.
      curves: The published curves by the label of their runs.
    """
    colours = _colours(all_groups, baseline)
    sections = [overview.ran(all_groups, colours)]
    if baseline is not None:
        sections += [results.means(all_groups, colours), results.differences(all_groups, baseline, colours)]
        sections += labels.sections(all_groups, colours)
        sections += [compared.curves(all_groups, colours, curves), *costs.ablation(all_groups)]
        sections.append(costs.throughput(all_groups, colours))
    sections.append(overview.failures(runs))
    if baseline is not None:
        sections.append(overview.commands(all_groups))
    sections.append(overview.table(runs, all_groups))
    return Document(_title(runs, all_groups), _summary(runs, all_groups), sections)


def _title(runs: Sequence[Run], all_groups: Sequence[Group]) -> str:
    names = list(dict.fromkeys(group.label for group in all_groups))
    of = f" of {', '.join(names[:4])}{' and others' if len(names) > 4 else ''}" if names else ""
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}{of}"


def _summary(runs: Sequence[Run], all_groups: Sequence[Group]) -> list[tuple[str, str]]:
    counts = {state: sum(run.state == state for run in runs) for state in STATES}
    shown = {state: count for state, count in counts.items() if count or state == "finished"}
    return [(name, str(count)) for name, count in {"runs": len(runs), **shown, "groups": len(all_groups)}.items()]


def _colours(all_groups: Sequence[Group], baseline: Group | None) -> dict[str, int]:
    """Returns a colour for each of the first groups: of many, for the baseline and those with the best accuracy."""

    def place(group: Group) -> tuple[bool, float]:
        values = group.values("best_val_accuracy").values()
        return group is not baseline, -fmean(values) if values else 1.0

    chosen = all_groups if len(all_groups) <= svg.COLOURS else sorted(all_groups, key=place)[: svg.COLOURS]
    names = {group.name for group in chosen}
    shown = [group.name for group in all_groups if group.name in names]
    return {group.name: 0 for group in all_groups} | {name: number for number, name in enumerate(shown, start=1)}
