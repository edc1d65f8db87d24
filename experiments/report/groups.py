"""Runs that differ in nothing but the seed form a group."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.errors import UsageError
from experiments.fields import FREE, PAGES
from experiments.report import pages, statistics
from experiments.report.runs import Run
from experiments.storage.entries import is_number

METRICS = {  # of a finished run, by the keys of its result
    "final_val_accuracy": "final val accuracy",
    "best_val_accuracy": "best val accuracy",
    "final_val_loss": "final val loss",
    "test_accuracy": "test accuracy",
}
_SHOWN_NAMES = 8  # in an error


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
      name: Its label, and the fields in which it differs from other groups with this label. A default of the page that most of
        these have is left out.
      label: The name of its page.
      config: The fields that change results, without the seed.
      runs: Its runs, in any state.
      finished: The run of each seed that counts: the first one that is finished.
    """

    name: str
    label: str
    config: Mapping[str, Any]
    runs: Sequence[Run]
    finished: Mapping[int, Run]

    def values(self, metric: str) -> dict[int, float]:
        """Returns a metric of the results by seed."""
        return {seed: run.result[metric] for seed, run in self.finished.items()}

    def summary(self, metric: str) -> statistics.Summary | None:
        """Returns the mean of a metric over the seeds."""
        return statistics.summary(list(self.values(metric).values()))

    @property
    def seeds(self) -> list[int]:
        """The seeds of all its runs."""
        return sorted({run.config["seed"] for run in self.runs})

    @property
    def folder(self) -> str:
        """Its name as that of a folder, which needs no quotes in a shell."""
        return re.sub(r"[^A-Za-z0-9_.=]+", "-", self.name).strip("-.")[:100] or "group"


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Returns the groups of all runs whose config can be read.

    Labels are in the order of their first runs, and the groups of a label in that of the fields in which they differ.
    """
    by_config: dict[str, list[Run]] = {}
    for run in runs:
        if run.config:
            by_config.setdefault(json.dumps(_own(run.config)), []).append(run)
    together = list(by_config.values())
    configs = [_own(each[0].config) for each in together]
    labels = _labels([_told_label(each) for each in together], configs)
    found = [
        Group(name, label, config, each, _finished(each))
        for name, label, config, each in zip(_names(labels, configs), labels, configs, together, strict=True)
    ]
    fields = differing(configs)
    return sorted(
        found, key=lambda group: (labels.index(group.label), [_place(value_of(group.config, field)) for field in fields])
    )


def _place(value: Any) -> tuple[bool, float, str]:
    """Returns what orders the values of a field: numbers by their size, then all others as text."""
    return (False, float(value), "") if is_number(value) else (True, 0.0, json.dumps(value))


def value_of(config: Mapping[str, Any], field: str) -> Any:
    """Returns the value of a field, or None for a body that has no such field."""
    return config[field] if field in config else None  # noqa: SIM401  # `get` on a config would be a hidden default


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the fields that are not the same in all configs, in the order of the pages."""
    names = dict.fromkeys(name for config in configs for name in config)  # models of pairs have other fields than classifiers
    return [name for name in names if len({json.dumps(value_of(each, name)) for each in configs}) > 1]


def reference(groups: Sequence[Group], name: str | None) -> Group | None:
    """Returns the group with a name; without one, the first group with a finished run, else the first, if there is any.

    Raises:
      UsageError: No group has this name.
    """
    if name is None:
        return next(iter(sorted(groups, key=lambda group: not group.finished)), None)
    for group in groups:
        if group.name == name:
            return group
    names = [repr(group.name) for group in groups]
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    listed = ", ".join(names[:_SHOWN_NAMES]) + more
    raise UsageError(f"--baseline={name} must be the name of a group: {listed or 'there is none'}")


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in (*FREE, "seed")}


def _labels(told: Sequence[str | None], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the label that each group tells, or the name of the page that is nearest to its config.

    That is also the name if groups of the same label have other kinds of model: the label is that of their sweep.
    """
    bodies: dict[str | None, set[str]] = {}
    for label, config in zip(told, configs, strict=True):
        bodies.setdefault(label, set()).add(config["model.body"])
    return [
        label if label in PAGES or (label and len(bodies[label]) == 1) else pages.nearest(config, None)[0]
        for label, config in zip(told, configs, strict=True)
    ]


def _told_label(runs: Sequence[Run]) -> str | None:
    """The label that the first finished run tells, else any run."""
    return next((run.label for run in sorted(runs, key=lambda run: not run.result) if run.label), None)


def _names(labels: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for label, config in zip(labels, configs, strict=True):
        alike.setdefault(label, []).append(config)
    told = {label: _told(label, each) for label, each in alike.items()}
    names: dict[str, None] = {}
    for label, config in zip(labels, configs, strict=True):
        fields = [field for field, usual in told[label].items() if json.dumps(value_of(config, field)) != usual]
        base = name = " ".join([label, *(f"{short(field)}={shown(value_of(config, field))}" for field in fields)])
        number = 1
        while name in names:  # "1" and 1 look alike
            number += 1
            name = f"{base} ({number})"
        names[name] = None
    return list(names)


def _told(label: str, configs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the fields that differ between the groups of a label, with the value of each that need not be told, or ""."""
    told = {}
    for field in differing(configs):
        most, count = Counter(json.dumps(value_of(config, field)) for config in configs).most_common(1)[0]
        usual = [config for config in configs if json.dumps(value_of(config, field)) == most]
        is_default = field not in pages.differing(usual[0], *pages.nearest(usual[0], label))
        told[field] = most if is_default and 2 * count > len(configs) else ""
    return told


def short(field: str) -> str:
    """Returns the name of a field without its group, where it is clear alone."""
    return field.removeprefix("model.")


def shown(value: Any) -> str:
    """Returns the value of a field as it is typed in a command."""
    return f"({','.join(map(str, value))})" if isinstance(value, list | tuple) else str(value)


def _finished(runs: Iterable[Run]) -> dict[int, Run]:
    found: dict[int, Run] = {}
    for run in runs:
        if run.state == "finished":
            found.setdefault(run.config["seed"], run)
    return dict(sorted(found.items()))
