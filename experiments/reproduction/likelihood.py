"""From which of several settings a training curve comes, by its likelihood under the spread of the seeds of each.

The curves of a setting are taken as normal with a mean of its own and a covariance that all settings share: linear discriminant
analysis. There are far fewer curves than values in a curve, so the correlations are shrunk towards zero by the amount that
Schäfer & Strimmer (2005, "A shrinkage approach to large-scale covariance matrix estimation", section 2.4, target D) derive.
Mean and covariance are estimated from few curves, so one more curve has a multivariate Student's t distribution about them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special, stats

Curves = Mapping[str, np.ndarray]  # of each setting, float64 `[seeds, values]`


def log_likelihoods(curve: np.ndarray, known: Curves) -> dict[str, float]:
    """Returns the log-likelihood of each setting for a curve.

    Args:
      curve: Its values, float64 `[values]`.
      known: Curves of each setting, at least one of each, and at least two more than settings.
    """
    residuals = np.concatenate([curves - curves.mean(0) for curves in known.values()])
    freedom = len(residuals) - len(known)
    scale = np.sqrt((residuals**2).sum(0) / freedom)
    correlation = shrunk_correlation(residuals / scale, freedom)
    found = {}
    for setting, curves in known.items():
        widened: Any = correlation * (1 + 1 / len(curves))  # SciPy's stub takes a number alone
        log = stats.multivariate_t.logpdf((curve - curves.mean(0)) / scale, shape=widened, df=freedom)
        found[setting] = float(log)
    return found


def posterior(logs: Mapping[str, float], temperature: float = 1.0) -> dict[str, float]:
    """Returns the probability of each setting, if all were equally likely before. See `temperature` for the temperature."""
    return dict(zip(logs, special.softmax(np.array(list(logs.values())) / temperature).tolist(), strict=True))


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
    """Returns the true setting of each curve, and the log-likelihoods that the other curves give for it.

    A setting with a single curve keeps it.
    """
    found = []
    for setting, curves in known.items():
        for index in range(len(curves) if len(curves) > 1 else 0):
            others = {**known, setting: np.delete(curves, index, 0)}
            found.append((setting, log_likelihoods(curves[index], others)))
    return found


def temperature(found: Sequence[tuple[str, Mapping[str, float]]]) -> float:
    """Returns the number by which log-likelihoods are divided, so that the held-out curves get their settings best.

    The values of a curve depend on each other more than few curves can tell, so the likelihoods are too sure of themselves. As
    in Guo et al. (2017, "On calibration of modern neural networks", section 4.2), one number corrects this. It is at least 1.
    """

    def surprise(log_temperature: float) -> float:
        return -float(np.mean([np.log(posterior(logs, np.exp(log_temperature))[true] + 1e-300) for true, logs in found]))

    best: Any = optimize.minimize_scalar(surprise, bounds=(0.0, 7.0), method="bounded")
    return float(np.exp(best.x))


def values_of(runs: Sequence[Sequence[Mapping[str, float]]], columns: Sequence[str]) -> np.ndarray:
    """Returns some columns of the rows of runs, `[runs, epochs × columns]`, rounded to the four digits that the blog prints."""
    return np.array([[round(row[column], 4) for row in rows for column in columns] for rows in runs])
