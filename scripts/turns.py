"""Times several contenders in turn, A B C A B C …, so that other load on the machine affects all of them."""

import datetime
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

import jax

from experiments.storage.provenance import software_and_device

WARM_UP = 2  # rounds that are not counted; everything is compiled in the first


def time_in_turn(step_functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Runs each step function once per round.

    Returns:
      The seconds of each, over `rounds` rounds after the first `WARM_UP`, which are included.
    """
    seconds: dict[str, list[float]] = {name: [] for name in step_functions}
    for _ in range(WARM_UP + rounds):
        for name, step in step_functions.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median(times: Sequence[float]) -> float:
    """The median of a contender's seconds, without the `WARM_UP` rounds."""
    return statistics.median(times[WARM_UP:])


def cells(theirs: Sequence[float], own: Sequence[float]) -> list[str]:
    """The median time in ms; the median, minimum and maximum of theirs / own over the rounds; the first step's seconds."""
    ratios = [a / b for a, b in zip(theirs[WARM_UP:], own[WARM_UP:], strict=True)]
    milliseconds = 1e3 * median(theirs)
    return [f"{milliseconds:.1f}", *spread(ratios), f"{theirs[0]:.1f}"]


def spread(values: Sequence[float]) -> list[str]:
    """The median, the minimum and the maximum."""
    return [f"{f(values):.2f}" for f in (statistics.median, min, max)]


def conditions(sizes: str, rounds: int, modules: Sequence[str]) -> str:
    """What a measurement depends on, in two lines: date, device, commit, sizes; and versions, also of installed `modules`."""
    provenance = software_and_device()
    versions = {"python": platform.python_version(), **provenance["versions"]}
    distributions = metadata.packages_distributions()
    versions |= {name: metadata.version(distributions[name][0]) for name in modules if name in distributions}
    where = f"{provenance['device']}, cores: {len(jax.devices('cpu'))}, commit {provenance['git_commit']}"
    return f"{datetime.date.today()}, {where}; {sizes}, rounds: {rounds}\n" + ", ".join(
        f"{name} {v}" for name, v in versions.items()
    )
