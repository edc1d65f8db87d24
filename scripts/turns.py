"""Timing several contenders in turn, A B C A B C …, so that what else the machine does meets all of them."""

import datetime
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

import jax

from experiments import train

WARM_UP = 2  # rounds; in the first everyone compiles


def time_in_turn(step_functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each contender's steps: one of each a round, `WARM_UP` rounds more than asked for."""
    seconds: dict[str, list[float]] = {name: [] for name in step_functions}
    for _ in range(WARM_UP + rounds):
        for name, step in step_functions.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median(times: Sequence[float]) -> float:
    """Of a contender's seconds, less the rounds of warming up."""
    return statistics.median(times[WARM_UP:])


def cells(theirs: Sequence[float], own: Sequence[float]) -> list[str]:
    """The median time in ms; the median, minimum and maximum over the rounds of theirs / ours; the first step in s."""
    ratios = [a / b for a, b in zip(theirs[WARM_UP:], own[WARM_UP:], strict=True)]
    milliseconds = 1e3 * median(theirs)
    return [f"{milliseconds:.1f}", *spread(ratios), f"{theirs[0]:.1f}"]


def spread(values: Sequence[float]) -> list[str]:
    """The median, the minimum and the maximum."""
    return [f"{f(values):.2f}" for f in (statistics.median, min, max)]


def conditions(sizes: str, rounds: int, modules: Sequence[str]) -> str:
    """What a table depends on, in two lines; the versions of those `modules` that are installed are among it."""
    made_by = train.provenance()
    versions = {"python": platform.python_version(), **made_by["versions"]}
    of = metadata.packages_distributions()
    versions |= {name: metadata.version(of[name][0]) for name in modules if name in of}
    where = f"{made_by['device']}, cores: {len(jax.devices('cpu'))}, commit {made_by['git_commit']}"
    return f"{datetime.date.today()}, {where}; {sizes}, rounds: {rounds}\n" + ", ".join(
        f"{name} {v}" for name, v in versions.items()
    )
