"""From which of several settings a training curve comes, by its likelihood under the spread of the seeds of each.

The curves of a setting are taken as normal with a mean of its own and a covariance that all settings share: linear discriminant
analysis. There are far fewer curves than values in a curve, so the correlations are shrunk towards zero by the amount that
Schäfer & Strimmer (2005, "A shrinkage approach to large-scale covariance matrix estimation", section 2.4, target D) derive.
Mean and covariance are estimated from few curves, so one more curve has a multivariate Student's t distribution about them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

Curves = Mapping[str, np.ndarray]  # of each setting, float64 `[seeds, values]`


def posterior(curve: np.ndarray, known: Curves) -> dict[str, float]:
    """Returns the probability of each setting for a curve, if all were equally likely before.

    Args:
      curve: Its values, float64 `[values]`.
      known: Curves of each setting, at least one of each, and at least two more than settings.
    """
    residuals = np.concatenate([curves - curves.mean(0) for curves in known.values()])
    freedom = len(residuals) - len(known)
    scale = np.sqrt((residuals**2).sum(0) / freedom)
    correlation = shrunk_correlation(residuals / scale, freedom)
    logs = []
    for curves in known.values():
        widened: Any = correlation * (1 + 1 / len(curves))  # SciPy's stub takes a number alone
        logs.append(stats.multivariate_t.logpdf((curve - curves.mean(0)) / scale, shape=widened, df=freedom))
    return dict(zip(known, special.softmax(logs).tolist(), strict=True))


def shrunk_correlation(residuals: np.ndarray, freedom: int) -> np.ndarray:
    """Returns the correlations of standardised residuals `[curves, values]`, shrunk towards zero: `[values, values]`."""
    products = residuals[:, :, None] * residuals[:, None, :]
    correlation = products.sum(0) / freedom
    variance = ((products - products.mean(0)) ** 2).sum(0) * len(residuals) / freedom**3  # of each correlation
    off = ~np.eye(len(correlation), dtype=bool)
    noise, found = variance[off].sum(), (correlation[off] ** 2).sum()
    intensity = noise / found if noise < found else 1.0
    return np.where(off, (1 - intensity) * correlation, 1.0)


def held_out(known: Curves) -> list[tuple[str, dict[str, float]]]:
    """Returns the true setting of each curve, and the posterior that the other curves give for it.

    A setting with a single curve keeps it.
    """
    found = []
    for setting, curves in known.items():
        for index in range(len(curves) if len(curves) > 1 else 0):
            others = {**known, setting: np.delete(curves, index, 0)}
            found.append((setting, posterior(curves[index], others)))
    return found


def values_of(runs: Sequence[Sequence[Mapping[str, float]]], columns: Sequence[str]) -> np.ndarray:
    """Returns some columns of the rows of runs, `[runs, epochs × columns]`, rounded to the four digits that the blog prints."""
    return np.array([[round(row[column], 4) for row in rows for column in columns] for rows in runs])
