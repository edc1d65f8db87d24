"""The ablation of heads: groups that differ in the number of heads, with what each number costs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

from experiments.errors import Refusal
from experiments.fields import CLASSES, FREE, GROUPS
from experiments.report import measured
from experiments.report.groups import Group
from experiments.storage.entries import is_number

HEADS, KEY_DIM = "model.num_heads", "model.key_dim"
_COUNTED = 16  # models whose operations are counted; each takes a third of a second
_NO_COST = (*FREE, "seed", "epochs", "patience", "init_from", "learning_rate", "data.name")  # no part of a step
_LAYERS = 32  # of a model whose operations are counted

Whisker = tuple[float, float, float]  # the middle and the ends


@dataclass(frozen=True)
class Point:
    """A group in the ablation.

    Attributes:
      group: The group.
      heads: Its number of heads.
      flops: The operations of a train step, or None if they were not counted.
      numbers: The mean of its metrics, with the standard deviation around it.
    """

    group: Group
    heads: int
    flops: int | None
    numbers: Mapping[str, Whisker | None]


class Series(NamedTuple):
    """Groups that differ in nothing but the heads, and in the key_dim if `kept` says so."""

    kept: str
    points: Sequence[Point]


def series(groups: Sequence[Group]) -> list[Series]:
    """Returns the groups of each ablation: with the same key_dim, or with the same num_heads × key_dim.

    A series is left out if each of its groups is in a longer one. If none differ in the heads alone, but the number of heads
    differs, all groups are one series that keeps nothing.
    """
    groups = [group for group in groups if all(type(group.config.get(name)) is int for name in (HEADS, KEY_DIM))]
    if len({group.config[HEADS] for group in groups}) < 2:
        return []
    found = [each for kept in ("key_dim", "num_heads × key_dim") for each in _alike(groups, kept)]
    found = [(kept, each) for kept, each in found if not all(_is_in_longer(group, each, found) for group in each)]
    wholes = [(_title(kept, each[0], groups), each) for kept, each in found] or [("", list(groups))]
    flops = _counter()
    made: dict[str, Point] = {}
    for _, each in wholes:
        for group in each:
            if group.name not in made:
                made[group.name] = _point(group, flops)
    return [Series(kept, sorted((made[group.name] for group in each), key=lambda p: p.heads)) for kept, each in wholes]


def _is_in_longer(group: Group, series: Sequence[Group], found: Sequence[tuple[str, Sequence[Group]]]) -> bool:
    return any(group in each and len(each) > len(series) for _, each in found)


def _title(kept: str, group: Group, groups: Sequence[Group]) -> str:
    """Returns what the groups of a series have in common, with their label if there are others."""
    label = f"{group.label}, " if any(other.label != group.label for other in groups) else ""
    return f"{label}{kept} = {_kept(group, kept)}"


def _kept(group: Group, kept: str) -> int:
    return group.config[KEY_DIM] * (1 if kept == "key_dim" else group.config[HEADS])


def _alike(groups: Sequence[Group], kept: str) -> list[tuple[str, list[Group]]]:
    alike: dict[str, list[Group]] = {}
    for group in groups:
        rest = {name: value for name, value in group.config.items() if name not in (HEADS, KEY_DIM)}
        alike.setdefault(json.dumps([rest, _kept(group, kept)]), []).append(group)
    return [(kept, each) for each in alike.values() if len({group.config[HEADS] for group in each}) > 1]


def _point(group: Group, flops: Callable[[Group], int | None]) -> Point:
    counted = flops(group)
    numbers: dict[str, Whisker | None] = {"flops": None if counted is None else (counted, counted, counted)}
    for metric in ("test_accuracy", "final_val_accuracy"):
        if summary := group.summary(metric):
            sd = summary.sd or 0.0
            numbers[metric] = summary.mean, summary.mean - sd, summary.mean + sd
        else:
            numbers[metric] = None
    speeds = [speed for run in group.finished.values() if (speed := per_epoch(run.rows, "examples_per_second")) is not None]
    numbers["examples_per_second"] = (fmean(speeds), min(speeds), max(speeds)) if speeds else None
    return Point(group, group.config[HEADS], counted, numbers)


def per_epoch(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    """Returns the median of a column over the epochs of a run, or None where no epoch has it."""
    values = [row[column] for row in rows if is_number(row.get(column))]
    return median(values) if values else None


def _counter() -> Callable[[Group], int | None]:
    """Returns a function that counts the operations of a step of a group, once for each model, and not for too many."""
    known: dict[str, int | None] = {}

    def flops(group: Group) -> int | None:
        result = next((run.result for run in group.finished.values()), {})
        words, length = result.get("vocabulary_size"), result.get("max_length")
        layers = group.config["model.num_layers"]
        if type(words) is not int or type(length) is not int or type(layers) is not int:
            return None
        if words < 4 or length < 1 or layers > _LAYERS:
            return None
        measures = measured.of(result)
        labels = None if measures is None else len(measures.recall)
        if labels is None and group.config["data.name"] not in CLASSES:
            return None
        key = json.dumps([words, length, labels, {name: value for name, value in group.config.items() if name not in _NO_COST}])
        if key not in known:
            known[key] = _flops(group, words, length, labels) if len(known) < _COUNTED else None
        return known[key]

    return flops


def _flops(group: Group, vocabulary_size: int, max_length: int, num_classes: int | None) -> int | None:
    """JAX is imported here, because most reports need no operations."""
    from ml_collections import ConfigDict

    from experiments.machine import devices

    nested: dict[str, Any] = {"seed": 0, **dict.fromkeys(FREE[1:])} | {name: {} for name in GROUPS}
    nested["data"]["dir"] = None
    for name, value in group.config.items():
        part, _, field = name.rpartition(".")
        (nested[part] if part else nested)[field] = tuple(value) if isinstance(value, list) else value
    try:
        devices.configure()
        from experiments.cost import train_step

        return round(train_step.of_config(ConfigDict(nested), vocabulary_size, max_length, num_classes).flops)
    except (Refusal, ValueError, TypeError, RuntimeError):  # a config that breaks a rule, or JAX without a device
        return None
