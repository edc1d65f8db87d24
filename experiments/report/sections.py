"""What a report says of runs: the sections in their order, and the numbers as they are shown."""

import statistics as median
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.fields import FREE
from experiments.report import charts, groups, heads, pages, published, svg
from experiments.report.document import Cell, Commands, Document, Figures, Section, Table, Text
from experiments.report.groups import METRICS, Group
from experiments.report.runs import CURVES, Run, is_number
from experiments.report.statistics import Interval, Summary, paired

STATES = ("finished", "running", "unfinished", "failed", "diverged", "damaged")
_NONE = "–"
_METHOD = (
    "Mean ± standard deviation over the seeds (n); the deviation is that of a sample, over n − 1. Only finished runs count. "
    "The lines below are two 95% intervals of the mean: t is Student's, which is exact if the seeds are normally distributed; "
    "b is the percentile bootstrap, which resamples the seeds with replacement (all resamples for up to 7 seeds, else 9,999 or "
    "fewer). b assumes no distribution, but it is too narrow for few seeds: of normal ones it holds the true mean in {} of "
    "cases. One seed has no interval."
)
COVERAGE = {2: 50, 3: 75, 5: 83, 10: 90}  # percent, by seeds: `python scripts/bench_report.py --coverage`


def document(runs: Sequence[Run], all_groups: Sequence[Group], baseline: Group | None, curves: Mapping[str, Any]) -> Document:
    """Returns the report of some runs.

    Args:
      runs: All runs, also those whose config is damaged.
      all_groups: Their groups.
      baseline: The group that the others are compared with, or None if there is no group.
      curves: The published curves by the label of their runs.
    """
    count = {state: sum(run.state == state for run in runs) for state in STATES}
    summary = [("runs", len(runs)), *count.items(), ("groups", len(all_groups))]
    colours = _colours(all_groups, baseline)
    sections = [_ran(all_groups, colours)]
    if baseline is not None:
        sections += [_results(all_groups, colours), _paired(all_groups, baseline, colours)]
        sections += [_curves(all_groups, colours, curves), *_ablation(all_groups), _throughput(all_groups, colours)]
    sections.append(_failures(runs))
    if baseline is not None:
        sections.append(_commands(all_groups))
    sections.append(_all(runs, all_groups))
    title = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
    labels = list(dict.fromkeys(group.label for group in all_groups))
    title += f" of {', '.join(labels[:4])}{' and others' if len(labels) > 4 else ''}" if labels else ""
    return Document(
        title, [(name, str(number)) for name, number in summary if number or name in ("runs", "finished")], sections
    )


def _colours(all_groups: Sequence[Group], baseline: Group | None) -> dict[str, int]:
    """Returns a colour for each of the first groups: of many, for the baseline and those with the best accuracy."""

    def place(group: Group) -> tuple[bool, float]:
        best = group.summary("best_val_accuracy")
        return group is not baseline, -best.mean if best else 1.0

    chosen = all_groups if len(all_groups) <= svg.COLOURS else sorted(all_groups, key=place)[: svg.COLOURS]
    names = {group.name for group in chosen}
    shown = [group.name for group in all_groups if group.name in names]
    return {group.name: 0 for group in all_groups} | {name: number for number, name in enumerate(shown, start=1)}


def _keys(some: Sequence[Group], colours: Mapping[str, int]) -> list[int]:
    return [colours[group.name] for group in some]


def _ran(all_groups: Sequence[Group], colours: Mapping[str, int]) -> Section:
    if not all_groups:
        return Section("ran", "What ran", [Text("No config can be read.")])
    configs = [group.config for group in all_groups]
    fields = groups.differing(configs)
    rows = [
        [group.name, _numbers(group.seeds), *(groups.shown(group.config[field]) for field in fields)] for group in all_groups
    ]
    common = [[name, groups.shown(value)] for name, value in configs[0].items() if name not in fields]
    words = range(1, len(fields) + 2)
    said = "A group is all runs that differ in nothing but the seed. "
    said += "The columns are the fields that differ between groups." if fields else "All fields but the seed are the same."
    return Section(
        "ran",
        "What ran",
        [
            Text(f"{said} Left out are {', '.join(FREE)}, which change no result."),
            Table(["group", "seeds", *map(groups.short, fields)], rows, words, keys=_keys(all_groups, colours)),
            Table(["field", "value"], common, (1,), folded=f"The {len(common)} fields that all have in common"),
        ],
    )


def _numbers(seeds: Sequence[int]) -> str:
    """Returns for example "0–4, 7"."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(
        str(part[0]) if len(part) == 1 else f"{part[0]}{'–' if len(part) > 2 else ', '}{part[-1]}" for part in parts
    )


def _results(all_groups: Sequence[Group], colours: Mapping[str, int]) -> Section:
    rows = [[group.name, *(spread(group.summary(metric)) for metric in METRICS)] for group in all_groups]
    coverage = ", ".join(f"{percent}% (n = {n})" for n, percent in COVERAGE.items())
    blocks = [Table(["group", *METRICS.values()], rows, keys=_keys(all_groups, colours)), Text(_METHOD.format(coverage))]
    repeats = sum(run.state == "finished" for group in all_groups for run in group.runs) - sum(
        len(group.finished) for group in all_groups
    )
    if repeats:
        blocks.append(Text(f"{repeats} finished runs repeat the config and the seed of an earlier one, and are not counted."))
    return Section("results", "Results", blocks)


def spread(summary: Summary | None, signed: bool = False) -> Cell:
    """Returns the lines of a cell: "0.8852 ± 0.0012 (5)" and the intervals."""
    if summary is None:
        return _NONE
    sign = "+" if signed else ""
    if summary.sd is None:
        return f"{summary.mean:{sign}.4f} (1)"

    def ends(interval: Interval | None) -> str:
        return "" if interval is None else f"{interval.low:{sign}.4f} to {interval.high:{sign}.4f}"

    first = f"{summary.mean:{sign}.4f} ± {summary.sd:.4f} ({summary.n})"
    return first, f"t {ends(summary.student)}", f"b {ends(summary.bootstrap)}"


def _paired(all_groups: Sequence[Group], baseline: Group, colours: Mapping[str, int]) -> Section:
    others = [group for group in all_groups if group is not baseline]
    if not others:
        return Section("paired", "Differences by seed", [Text("There is one group only.")])
    rows, shown = [], []
    for group in others:
        cells = [spread(paired(group.values(metric), baseline.values(metric)), signed=True) for metric in METRICS]
        if cells[0] != _NONE:
            rows.append([group.name, *cells])
            shown.append(group)
    said = f"Each group minus {baseline.name}, seed by seed; (n) is the number of pairs. Intervals are as in Results."
    if left_out := len(others) - len(rows):
        said += f" {left_out} group{'s have' if left_out > 1 else ' has'} no finished seed in common with it."
    table = [Table(["group", *METRICS.values()], rows, keys=_keys(shown, colours))] if rows else []
    return Section("paired", "Differences by seed", [Text(said), *table])


def _curves(all_groups: Sequence[Group], colours: Mapping[str, int], curves: Mapping[str, Any]) -> Section:
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
    blocks: list[Any] = [Figures(charts.curves(all_groups, colours, curves), legend, note)]
    matched = [group for group in all_groups if group.label in curves and group.finished]
    for group in matched:
        blocks += _deviations(group, curves[group.label])
    if alone := sorted(curves.keys() - {group.label for group in matched}):
        blocks.append(Text(f"Published, but there is no finished run with this label: {', '.join(alone)}."))
    return Section("curves", "Curves", blocks)


def _deviations(group: Group, curve: published.Curve) -> list[Any]:
    runs = [run.rows for run in group.finished.values()]
    by_metric = {column: published.deviations(curve, runs, column) for column in CURVES}
    epochs = sorted({each.epoch for found in by_metric.values() for each in found})
    cells = {(each.epoch, column): each for column, found in by_metric.items() for each in found}
    rows = [[str(epoch), *(_deviation(cells.get((epoch, column))) for column in CURVES)] for epoch in epochs]
    parts = []
    for column, found in by_metric.items():
        if found:
            far = max(found, key=lambda each: abs(each.difference))
            inside = sum(each.inside for each in found)
            parts.append(f"{column} {far.difference:+.4f} at epoch {far.epoch}, inside at {inside} of {len(found)} epochs")
    said = f"{group.name} against the published {group.label}: the largest deviation of our mean, and how often the published "
    said += (
        f"value is in the range of our {len(runs)} seed{'s' if len(runs) > 1 else ''}: {'; '.join(parts) or 'no common epoch'}."
    )
    header = ["epoch", *(charts.TITLES[column].partition(",")[0] for column in CURVES)]
    return [Text(said), Table(header, rows, folded=f"The deviation of {group.name} at each epoch")]


def _deviation(found: published.Deviation | None) -> Cell:
    if found is None:
        return _NONE
    return f"{found.difference:+.4f}", f"ours {found.ours.mean:.4f}, published {found.published:.4f}"


def _ablation(all_groups: Sequence[Group]) -> list[Section]:
    found = heads.series(all_groups)
    if not found:
        return []
    points = list({point.group.name: point for each in found for point in each.points}.values())
    rows = [
        [
            point.group.name,
            str(point.heads),
            spread(point.group.summary("final_val_accuracy")),
            spread(point.group.summary("test_accuracy")),
            _of_results(point.group, "parameters", lambda value: f"{value:,.0f}"),
            _NONE if point.flops is None else _metric(point.flops),
            _speed(point),
        ]
        for point in sorted(points, key=lambda point: point.heads)
    ]
    header = ["group", "heads", "final val accuracy", "test accuracy", "parameters", "FLOPs of a step", "examples/s"]
    shown = found[: svg.COLOURS]
    drawn = [(number, each.kept, each.points) for number, each in enumerate(shown, start=1)]
    titles = {"test_accuracy": "test accuracy", "flops": "FLOPs of a train step", "examples_per_second": "examples per second"}
    said = "Groups that differ in the number of heads alone, or also in key_dim, with the same num_heads × key_dim."
    if not found[0].kept:
        said = "No two groups differ in the number of heads alone: other fields explain a difference as well."
    more = f" The figure has the first {len(shown)} of {len(found)} such series." if len(found) > len(shown) else ""
    note = "Whiskers: ± standard deviation of the accuracy, slowest to fastest seed of the speed. FLOPs are counted on the "
    note += "program, not measured: a step of a batch on one device of this machine. – is not counted."
    legend = [(number, each.kept) for number, each in enumerate(shown, start=1) if each.kept]
    figures = Figures(charts.heads(drawn, titles), legend, note)
    return [Section("heads", "Heads", [Text(said + more), figures, Table(header, rows)])]


def _speed(point: heads.Point) -> str:
    speed = point.numbers["examples_per_second"]
    return _NONE if speed is None else f"{speed[0]:,.0f}"


def _metric(value: float) -> str:
    """Returns for example "19.5 G"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _of_results(group: Group, name: str, shown: Callable[[float], str]) -> str:
    """Returns the mean of a number in the results of a group."""
    values = [run.result[name] for run in group.finished.values() if is_number(run.result.get(name))]
    return shown(median.mean(values)) if values else _NONE


def _throughput(all_groups: Sequence[Group], colours: Mapping[str, int]) -> Section:
    columns = {"examples_per_second": ",.0f", "real_tokens_per_second": ",.0f", "step_milliseconds": ".2f"}
    some = [group for group in all_groups if group.finished]
    rows = []
    for group in some:
        cells = []
        for column, form in columns.items():
            values = [v for run in group.finished.values() if (v := heads.per_epoch(run.rows, column)) is not None]
            cells.append(f"{median.mean(values):{form}}" if values else _NONE)
        cells += [_of_results(group, name, lambda value: f"{value:,.1f}") for name in ("compile_seconds", "train_seconds")]
        devices = list(dict.fromkeys(str(run.result.get("device", _NONE)) for run in group.finished.values()))
        rows.append([group.name, *cells, ", ".join(devices)])
    if not rows:
        return Section("throughput", "Throughput", [Text("No run is finished.")])
    header = ["group", "examples/s", "tokens/s, without padding", "ms a step", "compile s", "training s", "device"]
    said = "The median epoch of each seed, and the mean over the seeds. Times of runs that shared a machine are not comparable."
    return Section("throughput", "Throughput", [Text(said), Table(header, rows, (6,), keys=_keys(some, colours))])


def _failures(runs: Sequence[Run]) -> Section:
    rows = []
    for run in runs:
        if run.state != "finished":
            planned = run.config.get("epochs")
            epochs = f"{len(run.rows)} of {planned}" if planned else str(len(run.rows))
            code, step = (_NONE if value is None else str(value) for value in (run.ending.code, run.ending.step))
            reason = "; ".join(run.damage) if run.damage else run.ending.reason
            rows.append([run.name, run.state, epochs, step, code, reason])
    if not rows:
        return Section("failures", "Failures", [Text(f"None: all {len(runs)} runs are finished.")])
    header = ["run", "state", "epochs", "saved step", "exit code", "reason"]
    said = f"{len(rows)} of {len(runs)} runs are not finished, or are damaged. They count in no mean."
    return Section("failures", "Failures", [Text(said), Table(header, rows, (1, 5))])


def _commands(all_groups: Sequence[Group]) -> Section:
    lines, used = [], set()
    for group in all_groups:
        folder = group.folder
        while folder in used:
            folder += "-2"
        used.add(folder)
        lines.append((group.name, pages.command(group.config, group.seeds, group.label, folder)))
    said = "In a checkout of the repository; only fields that differ from the page's defaults are given."
    return Section("commands", "Commands", [Text(said), Commands(lines)])


def _all(runs: Sequence[Run], all_groups: Sequence[Group]) -> Section:
    names = {id(run): group.name for group in all_groups for run in group.runs}
    rows = [
        [
            run.name,
            names.get(id(run), _NONE),
            str(run.config.get("seed", _NONE)),
            run.state,
            str(len(run.rows)),
            *(f"{run.result[metric]:.4f}" if run.result else _NONE for metric in METRICS),
        ]
        for run in runs
    ]
    header = ["run", "group", "seed", "state", "epochs", *METRICS.values()]
    table = Table(header, rows, (1, 3), folded=f"The {len(runs)} runs")
    return Section("runs", "Runs", [Text("runs.csv has a line for each run, and curves.csv one for each epoch."), table])
