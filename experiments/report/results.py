"""The sections on results: means over the seeds, and differences by seed."""

from collections.abc import Mapping, Sequence

from experiments.report.document import UNKNOWN, Cell, Section, Table, Text
from experiments.report.groups import METRICS, Group
from experiments.report.statistics import Interval, Summary, paired

_METHOD = (
    "Mean ± standard deviation over the seeds (n); the deviation is that of a sample, over n − 1. Only finished runs count. "
    "The lines below are two 95% intervals of the mean: t is Student's, which is exact if the seeds are normally distributed; "
    "b is the percentile bootstrap, which resamples the seeds with replacement (all resamples for up to 7 seeds, else 9,999 or "
    "fewer). b assumes no distribution, but it is too narrow for few seeds: of normal ones it holds the true mean in {} of "
    "cases. One seed has no interval."
)
COVERAGE = {2: 50, 3: 75, 5: 84, 10: 91}  # percent, by seeds: `python scripts/bench_report.py --coverage`


def means(all_groups: Sequence[Group], colours: Mapping[str, int]) -> Section:
    """Returns the means of each group."""
    rows = [[group.name, *(spread(group.summary(metric)) for metric in METRICS)] for group in all_groups]
    coverage = ", ".join(f"{percent}% (n = {n})" for n, percent in COVERAGE.items())
    blocks = [
        Table(["group", *METRICS.values()], rows, keys=[colours[group.name] for group in all_groups]),
        Text(_METHOD.format(coverage)),
    ]
    repeats = sum(run.state == "finished" for group in all_groups for run in group.runs) - sum(
        len(group.finished) for group in all_groups
    )
    if repeats:
        which = "1 finished run repeats" if repeats == 1 else f"{repeats} finished runs repeat"
        blocks.append(Text(f"{which} the config and the seed of an earlier one, which alone counts."))
    return Section("results", "Results", blocks)


def differences(all_groups: Sequence[Group], baseline: Group, colours: Mapping[str, int]) -> Section:
    """Returns how far each group is from the baseline, seed by seed."""
    others = [group for group in all_groups if group is not baseline]
    if not others:
        return Section("paired", "Differences by seed", [Text("There is one group only.")])
    rows, shown = [], []
    for group in others:
        cells = [spread(paired(group.values(metric), baseline.values(metric)), signed=True) for metric in METRICS]
        if cells[0] != UNKNOWN:
            rows.append([group.name, *cells])
            shown.append(group)
    said = f"Each group minus {baseline.name}, seed by seed; (n) is the number of pairs. Intervals are as in Results."
    if left_out := len(others) - len(rows):
        said += f" {left_out} group{'s have' if left_out > 1 else ' has'} no finished seed in common with it."
    table = [Table(["group", *METRICS.values()], rows, keys=[colours[group.name] for group in shown])] if rows else []
    return Section("paired", "Differences by seed", [Text(said), *table])


def spread(summary: Summary | None, signed: bool = False) -> Cell:
    """Returns the lines of a cell: "0.8852 ± 0.0012 (5)" and the intervals."""
    if summary is None:
        return UNKNOWN
    sign = "+" if signed else ""
    if summary.sd is None:
        return f"{summary.mean:{sign}.4f} (1)"

    def ends(interval: Interval | None) -> str:
        return "" if interval is None else f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"

    first = f"{summary.mean:{sign}.4f} ± {summary.sd:.4f} ({summary.n})"
    return first, f"t {ends(summary.student)}", f"b {ends(summary.bootstrap)}"
