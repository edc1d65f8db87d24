"""The comparison of one curve with the curves of n seeds.

The n + 1 curves, the blog's and ours, are treated alike: each is compared with the n others. If the blog's run is one more run
of our program, every order of the n + 1 curves is equally likely, and then the p-values are exact for every distribution.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Rows = Sequence[Mapping[str, Any]]  # of one run, one row per epoch
COLUMNS = ("val_loss", "val_accuracy")
LEVEL = 0.9  # of the prediction interval
_UNITS = 10_000  # the blog prints four digits


def pool(blog: Rows, seeds: Sequence[Rows]) -> np.ndarray:
    """Returns the curves in units of 0.0001, int64 `[1 + n, epochs, columns]`. The blog is the first.

    All are rounded to the four digits of the blog: otherwise its rounding would tell it from ours, and there were no ties. In
    integers the sums of `deviations` are exact.
    """
    values = np.array([[[row[column] for column in COLUMNS] for row in rows] for rows in (blog, *seeds)], np.float64)
    return np.rint(values * _UNITS).astype(np.int64)


def ranks(curves: np.ndarray) -> np.ndarray:
    """Returns the rank of the first curve among all, `[epochs, columns]`, from 1 for the lowest to n + 1.

    Equal values have the mean of their ranks.
    """
    first, others = curves[0], curves[1:]
    return 1 + (others < first).sum(0) + (others == first).sum(0) / 2


def deviations(curves: np.ndarray) -> np.ndarray:
    """Returns the standardised deviation of each curve from the n others, `[1 + n, epochs, columns]`.

    It is (x − m) / (s √(1 + 1/n)), with the mean m and the standard deviation s of the others. If the values of an epoch are
    independent and normal, it has Student's t distribution with n − 1 degrees of freedom. It is ±inf where the others are all
    equal and x is not, and 0 where x is equal too.
    """
    n = len(curves) - 1
    sums, squares = curves.sum(0) - curves, (curves**2).sum(0) - curves**2  # of the others
    distances = n * curves - sums  # n (x − m)
    spread = n * squares - sums**2  # n (n − 1) s²
    with np.errstate(divide="ignore"):
        scale = np.sqrt((n - 1) / ((n + 1) * spread.astype(np.float64)))
    return np.multiply(distances, scale, out=np.zeros(curves.shape), where=distances != 0)


def half_width(n: int) -> float:
    """Returns the deviation at the ends of the prediction interval of LEVEL, from the values of n curves."""
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1))


def inside(deviation: np.ndarray) -> np.ndarray:
    """Counts for each curve the epochs inside its prediction interval, `[1 + n, columns]`."""
    return (np.abs(deviation) <= half_width(len(deviation) - 1)).sum(1)


def mean_square(deviation: np.ndarray) -> np.ndarray:
    """Returns the mean of the squared deviations of each curve, `[1 + n]`: it is large for a curve that lies apart."""
    return (deviation**2).mean((1, 2))


def largest(deviation: np.ndarray) -> np.ndarray:
    """Returns the largest absolute deviation of each curve, `[1 + n]`: it is large for a curve with one odd epoch."""
    return np.abs(deviation).max((1, 2))


def places(statistic: np.ndarray) -> np.ndarray:
    """Returns for each curve how many curves have a statistic at least as large, itself included: int64 `[1 + n]`.

    The place of the blog, divided by n + 1, is its p-value.
    """
    return (statistic >= statistic[:, None]).sum(1)


def combined(places_of_models: Sequence[np.ndarray]) -> float:
    """Returns one p-value for the blog's curves of several models, which have to be independent.

    The statistic is the product of the places, which is Fisher's. Its distribution is counted, not approximated by χ²: the
    p-value is the share of all choices of one curve per model whose product is at most the blog's.

    Args:
      places_of_models: The places of each model's curves, the blog's first; see `places`.
    """
    product = np.multiply.reduce([p[0] for p in places_of_models], dtype=np.int64)
    half = len(places_of_models) // 2
    one, other = (_products(part) for part in (places_of_models[:half], places_of_models[half:]))
    choices = np.searchsorted(np.sort(one), product // other, side="right").sum()
    return float(choices) / (len(one) * len(other))


def _products(factors: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the products of all choices of one factor from each array."""
    return functools.reduce(lambda products, factor: np.outer(products, factor).ravel(), factors, np.ones(1, np.int64))


def correlation(deviations_of_models: Sequence[np.ndarray]) -> float:
    """Returns the correlation of our seeds' mean deviations between two models, the mean over all pairs of models.

    A seed gives all models the same order of reviews and the same initial embedding, so their runs might be dependent.
    """
    signs = np.array([-1, 1])  # a run that is ahead has a low loss and a high accuracy
    ahead = np.array([(np.clip(deviation[1:], -9, 9) * signs).mean((1, 2)) for deviation in deviations_of_models])
    ahead -= ahead.mean(1, keepdims=True)
    norms = np.linalg.norm(ahead, axis=1)
    products = ahead @ ahead.T / np.maximum(np.outer(norms, norms), 1e-30)
    return float(products[np.triu_indices(len(ahead), 1)].mean())
