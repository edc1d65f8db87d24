"""Which trials run in one process: those that one program can train, divided so that all slots have something to do."""

import itertools
import json
from collections.abc import Sequence
from typing import NamedTuple

from experiments.sweeps.trials import Trial
from experiments.training import together


class Group(NamedTuple):
    """Trials that one process trains together.

    Attributes:
      trials: The trials.
      epochs: Up to which epoch they are trained; None: to the last one of each.
    """

    trials: list[Trial]
    epochs: int | None


def grouped(trials: Sequence[Trial], epochs: int | None, slots: int, most: int) -> list[Group]:
    """Divides trials into groups, in the order of the trials that come first in them.

    Args:
      trials: The trials.
      epochs: As in `Group`.
      slots: How many groups run at the same time. No group has more than the fair share of one of them.
      most: How many trials a group may have.
    """
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        alike.setdefault(_program(trial), []).append(trial)
    limit = max(1, min(most, -(-len(trials) // slots)))
    groups = []
    for members in alike.values():
        parts = -(-len(members) // limit)
        ends = [index * len(members) // parts for index in range(parts + 1)]
        groups += [Group(members[first:last], epochs) for first, last in itertools.pairwise(ends)]
    return groups


def _program(trial: Trial) -> str:
    """Returns what trials have in common that `together.train` can train."""
    return json.dumps([together.program_of(trial.fields), trial.corpus], sort_keys=True)
