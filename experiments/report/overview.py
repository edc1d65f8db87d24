"""The sections on the runs themselves: what ran, what failed, and how to repeat it."""

from collections.abc import Mapping, Sequence

from experiments.fields import FREE
from experiments.report import groups, pages
from experiments.report.document import UNKNOWN, Commands, Section, Table, Text
from experiments.report.groups import METRICS, Group
from experiments.report.runs import Run


def ran(all_groups: Sequence[Group], colours: Mapping[str, int]) -> Section:
    """Returns the fields in which the groups differ, and those that they have in common."""
    if not all_groups:
        return Section("ran", "What ran", [Text("No config can be read.")])
    configs = [group.config for group in all_groups]
    fields = groups.differing(configs)
    rows = [
        [group.name, _numbers(group.seeds), *(groups.shown(group.config.get(field, UNKNOWN)) for field in fields)]
        for group in all_groups
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
            Table(
                ["group", "seeds", *map(groups.short, fields)], rows, words, keys=[colours[group.name] for group in all_groups]
            ),
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


def failures(runs: Sequence[Run]) -> Section:
    """Returns how far the runs came that are not finished, and why."""
    rows = []
    for run in runs:
        if run.state != "finished":
            planned = run.config.get("epochs")
            epochs = f"{len(run.rows)} of {planned}" if planned else str(len(run.rows))
            code, step = (UNKNOWN if value is None else str(value) for value in (run.ending.code, run.ending.step))
            reason = "; ".join(run.damage) if run.damage else run.ending.reason
            rows.append([run.name, run.state, epochs, step, code, reason])
    if not rows:
        who = "the run is" if len(runs) == 1 else f"all {len(runs)} runs are"
        return Section("failures", "Failures", [Text(f"None: {who} finished.")])
    header = ["run", "state", "epochs", "saved step", "exit code", "reason"]
    said = f"{len(rows)} of {len(runs)} runs are not finished, or are damaged. They count in no mean."
    return Section("failures", "Failures", [Text(said), Table(header, rows, (1, 5))])


def commands(all_groups: Sequence[Group]) -> Section:
    """Returns a command for each group, which trains its seeds."""
    lines, used = [], set()
    for group in all_groups:
        folder = group.folder
        while folder in used:
            folder += "-2"
        used.add(folder)
        lines.append((group.name, pages.command(group.config, group.seeds, group.label, folder)))
    said = "In a checkout of the repository; only fields that differ from the page's defaults are given."
    return Section("commands", "Commands", [Text(said), Commands(lines)])


def table(runs: Sequence[Run], all_groups: Sequence[Group]) -> Section:
    """Returns a line for each run."""
    names = {id(run): group.name for group in all_groups for run in group.runs}
    rows = [
        [
            run.name,
            names.get(id(run), UNKNOWN),
            str(run.config.get("seed", UNKNOWN)),
            run.state,
            str(len(run.rows)),
            *(f"{run.result[metric]:.4f}" if run.result else UNKNOWN for metric in METRICS),
        ]
        for run in runs
    ]
    header = ["run", "group", "seed", "state", "epochs", *METRICS.values()]
    table = Table(header, rows, (1, 3), folded="The run" if len(runs) == 1 else f"The {len(runs)} runs")
    return Section("runs", "Runs", [Text("runs.csv has a line for each run, and curves.csv one for each epoch."), table])
