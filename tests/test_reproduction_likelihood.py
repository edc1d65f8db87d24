"""The likelihood of a curve under the spread of seeds, against SciPy, against settings that are known, and by hand."""

import numpy as np
import pytest
from scipy import stats

from experiments.reproduction import likelihood


def curves(generator: np.random.Generator, shift: float, count: int, correlation: float, length: int = 6) -> np.ndarray:
    """Curves of normal values, all correlated with each other."""
    common = generator.normal(size=(count, 1))
    return shift + np.sqrt(correlation) * common + np.sqrt(1 - correlation) * generator.normal(size=(count, length))


def test_one_value_is_students_t():
    """Two settings of 2 and 3 curves of one value: a t distribution with 3 degrees of freedom about each mean."""
    known = {"a": np.array([[1.0], [3.0]]), "b": np.array([[4.0], [6.0], [8.0]])}
    pooled = np.sqrt((1 + 1 + 4 + 0 + 4) / 3)
    a = stats.t.pdf(3.5, 3, loc=2, scale=pooled * np.sqrt(3 / 2))
    b = stats.t.pdf(3.5, 3, loc=6, scale=pooled * np.sqrt(4 / 3))
    found = likelihood.posterior(likelihood.log_likelihoods(np.array([3.5]), known))
    assert found == pytest.approx({"a": a / (a + b), "b": b / (a + b)})


def test_many_curves_need_no_shrinkage():
    """And few do: of independent values, the correlations that are left are small."""
    generator = np.random.default_rng(0)
    many = curves(generator, 0.0, 4000, 0.6)
    shrunk = likelihood.shrunk_correlation((many - many.mean(0)) / many.std(0), len(many) - 1)
    assert shrunk == pytest.approx(np.where(np.eye(6), 1, 0.6), abs=0.04)
    few = curves(generator, 0.0, 6, 0.0, length=20)
    standard = (few - few.mean(0)) / few.std(0, ddof=1)
    off = ~np.eye(20, dtype=bool)
    raw, shrunk = standard.T @ standard / 5, likelihood.shrunk_correlation(standard, 5)
    assert np.abs(shrunk[off]).mean() < 0.5 * np.abs(raw[off]).mean()
    ratio = shrunk[off] / raw[off]
    assert ratio == pytest.approx(np.full(ratio.shape, ratio[0])), "all by the same factor"


def test_settings_that_are_known():
    """Far apart, all are found; equal ones are found by chance, and are not believed."""
    generator = np.random.default_rng(1)
    apart = {str(shift): curves(generator, shift, 4, 0.5) for shift in (0.0, 9.0, 18.0)}
    found = likelihood.held_out(apart)
    assert len(found) == 12
    assert all(likelihood.posterior(logs)[true] > 0.95 for true, logs in found)
    assert likelihood.temperature(found) == pytest.approx(1, abs=0.01), "nothing was wrong"
    same = [each for _ in range(40) for each in likelihood.held_out({n: curves(generator, 0.0, 5, 0.5) for n in "ab"})]
    assert 0.3 < np.mean([likelihood.posterior(logs)[true] > 0.5 for true, logs in same]) < 0.6
    warmth = likelihood.temperature(same)
    assert warmth > 5
    assert max(max(likelihood.posterior(logs, warmth).values()) for _, logs in same) < 0.7


def test_the_temperature_is_the_best_one():
    """Three of four curves have their setting with log-odds of 6, one has not: odds of 3 to 1 need 6 / ln 3."""
    found = [("a", {"a": 6.0, "b": 0.0})] * 3 + [("b", {"a": 6.0, "b": 0.0})]
    assert likelihood.temperature(found) == pytest.approx(6 / np.log(3), rel=1e-3)


def test_a_setting_with_one_curve_keeps_it():
    generator = np.random.default_rng(2)
    known = {"a": curves(generator, 0.0, 3, 0.1), "b": curves(generator, 5.0, 1, 0.1)}
    assert [true for true, _ in likelihood.held_out(known)] == ["a"] * 3


def test_values_are_rounded_as_the_blog_prints_them():
    rows = [{"epoch": 1, "x": 0.12344, "y": 1.0}, {"epoch": 2, "x": 0.98765, "y": 2.0}]
    assert likelihood.values_of([rows], ("y", "x")).tolist() == [[1.0, 0.1234, 2.0, 0.9877]]
