"""Means over seeds with their intervals, and differences paired by seed.

Two 95% intervals of a mean, because neither is right for all. Student's t is exact where the seeds are normally distributed.
The percentile bootstrap assumes no distribution, but it never leaves the range of the seeds, so that it is too narrow for few
of them: `python scripts/bench_report.py --coverage` counts how often each holds the true mean.
"""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
_EXACT = 7  # seeds up to which every resample is listed, with its probability: at most 1,716 that differ
_RESAMPLES, _DRAWS = 9_999, 1_000_000  # of more seeds: so many are drawn, but no more than this many seeds in all


class Interval(NamedTuple):
    """The ends of an interval."""

    low: float
    high: float


class Summary(NamedTuple):
    """The mean of some seeds. The standard deviation is that of a sample, over n − 1; it and the intervals need two seeds."""

    n: int
    mean: float
    sd: float | None
    student: Interval | None
    bootstrap: Interval | None


def summary(values: Sequence[float]) -> Summary | None:
    """Returns the mean of some values with its spread, or None of no values."""
    n = len(values)
    if n == 0:
        return None
    array = np.asarray(values, np.float64)
    mean = float(array.mean())
    if n == 1:
        return Summary(n, mean, None, None, None)
    sd = float(array.std(ddof=1))
    half = _student(n) * sd / math.sqrt(n)
    return Summary(n, mean, sd, Interval(mean - half, mean + half), bootstrap(array))


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> Summary | None:
    """Returns the summary of the differences between the values of the seeds that two groups have in common."""
    return summary([values[seed] - reference[seed] for seed in values if seed in reference])


def bootstrap(values: np.ndarray) -> Interval:
    """Returns the percentile interval of the mean over resamples with replacement: over all of them for few values."""
    counts, weights = _resamples(len(values))
    means = counts @ values / len(values)
    order = np.argsort(means)
    below = np.cumsum(weights[order])
    ends = np.searchsorted(below, [(1 - LEVEL) / 2 - 1e-12, (1 + LEVEL) / 2 - 1e-12])
    low, high = means[order[np.minimum(ends, len(order) - 1)]]
    return Interval(float(low), float(high))


@functools.cache
def _student(n: int) -> float:
    """The quantile of Student's t with n − 1 degrees of freedom."""
    from scipy.special import stdtrit  # a tenth of the time of importing scipy.stats

    return float(stdtrit(n - 1, (1 + LEVEL) / 2))


@functools.cache
def _resamples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each value is in each resample of n values `[R, n]`, and the probabilities of the resamples `[R]`."""
    if n > _EXACT:
        size = max(999, min(_RESAMPLES, _DRAWS // n))
        counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size)  # the same in every report
        return counts.astype(np.float64), np.full(size, 1 / size)
    chosen = itertools.combinations_with_replacement(range(n), n)
    counts = np.array([np.bincount(indices, minlength=n) for indices in chosen])
    ways = [math.factorial(n) / math.prod(map(math.factorial, row)) for row in counts.tolist()]
    return counts.astype(np.float64), np.array(ways) / n**n
