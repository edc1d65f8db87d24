"""The sections on costs: the ablation of heads, and the throughput."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from experiments.report import charts, heads, svg
from experiments.report.document import UNKNOWN, Figures, Section, Table, Text
from experiments.report.groups import Group
from experiments.report.results import spread
from experiments.storage.entries import is_number


def ablation(all_groups: Sequence[Group]) -> list[Section]:
    """Returns what the number of heads changes; nothing if all groups have the same one."""
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
            UNKNOWN if point.flops is None else _metric(point.flops),
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
    note += "program, not measured: a step of a batch on one device of this machine."
    if any(point.flops is None for point in points):
        note += " Those with a dash are not counted: only sixteen different models are, and their runs must be finished."
    legend = [(number, each.kept) for number, each in enumerate(shown, start=1) if each.kept]
    figures = Figures(charts.heads(drawn, titles), legend, note)
    return [Section("heads", "Heads", [Text(said + more), figures, Table(header, rows)])]


def _speed(point: heads.Point) -> str:
    speed = point.numbers["examples_per_second"]
    return UNKNOWN if speed is None else f"{speed[0]:,.0f}"


def _metric(value: float) -> str:
    """Returns for example "19.5 G"."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _of_results(group: Group, name: str, shown: Callable[[float], str]) -> str:
    """Returns the mean of a number in the results of a group."""
    values = [run.result[name] for run in group.finished.values() if is_number(run.result.get(name))]
    return shown(fmean(values)) if values else UNKNOWN


def throughput(all_groups: Sequence[Group], colours: Mapping[str, int]) -> Section:
    """Returns how fast each group was trained."""
    columns = {"examples_per_second": ",.0f", "real_tokens_per_second": ",.0f", "step_milliseconds": ".2f"}
    some = [group for group in all_groups if group.finished]
    rows = []
    for group in some:
        cells = []
        for column, form in columns.items():
            values = [v for run in group.finished.values() if (v := heads.per_epoch(run.rows, column)) is not None]
            cells.append(f"{fmean(values):{form}}" if values else UNKNOWN)
        cells += [_of_results(group, name, lambda value: f"{value:,.1f}") for name in ("compile_seconds", "train_seconds")]
        devices = list(dict.fromkeys(str(run.result.get("device", UNKNOWN)) for run in group.finished.values()))
        rows.append([group.name, *cells, ", ".join(devices)])
    if not rows:
        return Section("throughput", "Throughput", [Text("No run is finished.")])
    header = ["group", "examples/s", "tokens/s, without padding", "ms a step", "compile s", "training s", "device"]
    said = "The median epoch of each seed, and the mean over the seeds. Times of runs that shared a machine are not comparable."
    return Section(
        "throughput", "Throughput", [Text(said), Table(header, rows, (6,), keys=[colours[group.name] for group in some])]
    )
