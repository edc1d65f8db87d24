"""The comparison of one curve with n others, against numbers worked by hand, loops, and curves from a known process."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.reproduction import statistics

EPOCHS = 10


def rows(losses: list[float], accuracies: list[float]) -> list[dict[str, Any]]:
    return [{"val_loss": loss, "val_accuracy": accuracy} for loss, accuracy in zip(losses, accuracies, strict=True)]


def curves(*values: int) -> np.ndarray:
    """Curves of one epoch and one column, the blog's first."""
    return np.array(values, np.int64)[:, None, None]


def simulated(rng: np.random.Generator, curves: int, scale: float = 300.0) -> np.ndarray:
    """Curves from a Gaussian process: neighbouring epochs have the correlation 0.8, loss and accuracy −0.7."""
    distance = np.abs(np.subtract.outer(np.arange(EPOCHS), np.arange(EPOCHS)))
    covariance = np.kron(0.8**distance, [[1, -0.7], [-0.7, 1]])
    values = rng.multivariate_normal(np.zeros(2 * EPOCHS), covariance, curves).reshape(curves, EPOCHS, 2)
    return np.rint(5000 + scale * values).astype(np.int64)


def p_values(values: np.ndarray) -> tuple[float, float]:
    found = statistics.deviations(values)
    return tuple(statistics.places(f(found))[0] / len(values) for f in (statistics.mean_square, statistics.largest))


def test_pool_rounds_all_to_the_digits_of_the_blog():
    blog, seed = rows([0.6911, 0.5], [0.6503, 0.7]), rows([0.69114, 0.49996], [0.65029, 0.70006])
    assert statistics.pool(blog, [seed]).tolist() == [[[6911, 6503], [5000, 7000]], [[6911, 6503], [5000, 7001]]]


@pytest.mark.parametrize(
    ("values", "rank"),
    [
        ((3, 1, 2, 4, 5), 3),  # 1 2 [3] 4 5
        ((0, 1, 2, 4, 5), 1),
        ((9, 1, 2, 4, 5), 5),
        ((2, 1, 2, 4, 5), 2.5),  # 1 [2 2] 4 5: the ranks 2 and 3
        ((2, 2, 2, 4, 5), 2),  # [2 2 2] 4 5: the ranks 1 to 3
        ((7, 7, 7, 7, 7), 3),
    ],
)
def test_ranks_by_hand(values: tuple[int, ...], rank: float):
    assert statistics.ranks(curves(*values)).tolist() == [[rank]]


@pytest.mark.parametrize("n", [2, 5, 20])
def test_ranks_are_those_of_scipy(n: int):
    values = simulated(np.random.default_rng(n), n + 1, scale=1.5)  # with many ties
    assert np.array_equal(statistics.ranks(values), stats.rankdata(values, axis=0)[0])
    assert any(rank % 1 for rank in statistics.ranks(values).ravel())


def test_deviations_by_hand():
    """The others of 7 are 1, 2 and 3: their mean is 2, s is 1, and √(1 + 1/3) is 1.1547."""
    found = statistics.deviations(curves(7, 1, 2, 3)).ravel()
    assert found[0] == pytest.approx(5 / math.sqrt(4 / 3))
    assert found[1] == pytest.approx((1 - 4) / math.sqrt(7 * 4 / 3))  # the others are 7, 2 and 3: s² is 14 / 2


def test_deviations_are_those_of_a_loop():
    values = simulated(np.random.default_rng(0), 7)
    found = statistics.deviations(values)
    for i, epoch, column in itertools.product(range(7), range(EPOCHS), range(2)):
        others = np.delete(values[:, epoch, column], i).astype(np.float64)
        expected = (values[i, epoch, column] - others.mean()) / (others.std(ddof=1) * math.sqrt(1 + 1 / 6))
        assert found[i, epoch, column] == pytest.approx(expected, rel=1e-12)


def test_deviations_from_equal_values():
    assert statistics.deviations(curves(6932, 6932, 6932)).ravel().tolist() == [0, 0, 0]
    assert statistics.deviations(curves(6931, 6932, 6932)).ravel()[0] == -math.inf
    assert statistics.deviations(curves(6933, 6932, 6932)).ravel()[0] == math.inf


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_interval_holds_the_next_value_as_often_as_it_says(n: int):
    """Each of 20,000 new values, with n values before it."""
    values = np.random.default_rng(n).normal(0, 1e6, (n + 1, 20_000, 1)).astype(np.int64)
    share = statistics.inside(statistics.deviations(values))[0, 0] / 20_000
    assert abs(share - statistics.LEVEL) < 4 * math.sqrt(0.9 * 0.1 / 20_000)


def test_places_by_hand():
    """How many are at least as large; equal ones count for each other, and so do two infinite ones."""
    assert statistics.places(np.array([3.0, 1.0, 2.0, 4.0])).tolist() == [2, 4, 3, 1]
    assert statistics.places(np.array([2.0, 1.0, 2.0, 4.0])).tolist() == [3, 4, 3, 1]
    assert statistics.places(np.array([math.inf, 1.0, math.inf])).tolist() == [2, 3, 2]


def test_statistics_by_hand():
    deviation = np.array([[[1.0, -2.0], [0.0, 3.0]], [[0.0, 0.0], [-4.0, 0.0]]])
    assert statistics.mean_square(deviation).tolist() == [14 / 4, 16 / 4]
    assert statistics.largest(deviation).tolist() == [3, 4]


@pytest.mark.parametrize("n", [2, 5, 20])
def test_p_values_of_one_more_draw_are_uniform(n: int):
    """P(p ≤ k / (n + 1)) is k / (n + 1) for every k: within 4.5 standard errors for each of them."""
    rng = np.random.default_rng(n)
    repeats = 800
    for found in zip(*(p_values(simulated(rng, n + 1)) for _ in range(repeats)), strict=True):
        for k in range(1, n + 1):
            level = k / (n + 1)
            error = math.sqrt(level * (1 - level) / repeats)
            assert abs(np.mean(np.array(found) <= level + 1e-9) - level) < 4.5 * error


def test_p_values_are_exact_for_any_distribution():
    """Of all orders of the same four curves, one in four has the smallest p-value. The curves are far from normal."""
    values = np.array([[[1, 5]], [[2, 7]], [[9000, 4]], [[12, 0]]], np.int64)
    found = [p_values(values[list(order)]) for order in itertools.permutations(range(4))]
    for column in zip(*found, strict=True):
        assert sorted(column) == sorted([0.25] * 6 + [0.5] * 6 + [0.75] * 6 + [1.0] * 6)


def test_ties_make_p_values_larger_and_never_smaller():
    values = np.array([[[1, 5]], [[1, 5]], [[9000, 4]], [[9000, 4]]], np.int64)
    assert p_values(values) == (1, 1)
    values = np.array([[[1, 5]], [[2, 5]], [[9000, 4]], [[9000, 4]]], np.int64)
    found = np.array([p_values(values[list(order)]) for order in itertools.permutations(range(4))])
    for k in range(1, 4):
        assert ((found <= k / 4).mean(0) <= k / 4).all()


def test_the_share_inside_is_nominal_for_the_blog_and_for_each_seed():
    rng = np.random.default_rng(7)
    shares = np.array([statistics.inside(statistics.deviations(simulated(rng, 6))) for _ in range(600)]) / EPOCHS
    means = shares.mean(0)  # `[curves, columns]`
    errors = shares.std(0) / math.sqrt(len(shares))
    assert (np.abs(means - statistics.LEVEL) < 4.5 * errors).all()
    assert errors.max() < 0.012


@pytest.mark.parametrize("n", [5, 20])
def test_a_shifted_curve_is_found(n: int):
    """By five standard deviations at all epochs, and by seven at two of twenty values, which the largest one tells better."""
    rng = np.random.default_rng(n)
    shifted, odd = [], []
    for _ in range(100):
        values = simulated(rng, n + 1)
        values[0] += np.array([1500, -1500])
        shifted.append(p_values(values)[0])
        values = simulated(rng, n + 1)
        values[0, :2, 1] -= 2100
        odd.append(p_values(values)[1])
    assert np.mean(np.isclose(shifted, 1 / (n + 1))) > 0.97
    assert np.mean(np.isclose(odd, 1 / (n + 1))) > 0.8


def test_combined_is_the_share_of_all_choices():
    rng = np.random.default_rng(0)
    for models in (1, 2, 3, 4):
        by_model = [statistics.places(rng.integers(0, 5, 6).astype(float)) for _ in range(models)]
        product = math.prod(int(places[0]) for places in by_model)
        choices = [math.prod(map(int, choice)) for choice in itertools.product(*by_model)]
        expected = sum(choice <= product for choice in choices) / 6**models
        assert statistics.combined(by_model) == pytest.approx(expected)


def test_combined_of_independent_models_is_uniform():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(1000):
        found.append(statistics.combined([rng.permutation(np.arange(1, 7)) for _ in range(4)]))
    for level in (0.01, 0.05, 0.2, 0.5, 0.8):
        assert abs(np.mean(np.array(found) <= level) - level) < 4.5 * math.sqrt(level * (1 - level) / 1000) + 0.003
    first = np.array([1, 2, 3, 4, 5, 6])
    assert statistics.combined([first] * 4) == pytest.approx(6**-4)
    assert statistics.combined([first[::-1]] * 4) == 1


@pytest.mark.parametrize(("n", "at_most"), [(5, 0.13), (20, 0.08)])
def test_combined_of_models_that_share_all_of_a_seed(n: int, at_most: float):
    """The worst case of dependence: our runs of a seed are the same draw in all four models, and the blog's are not."""
    rng = np.random.default_rng(n)
    found = []
    for _ in range(800):
        seeds = rng.normal(0, 1000, n)
        values = [np.rint(np.array([rng.normal(0, 1000), *seeds])).astype(np.int64)[:, None, None] for _ in range(4)]
        found.append(statistics.combined([statistics.places(statistics.mean_square(statistics.deviations(v))) for v in values]))
    assert np.mean(np.array(found) <= 0.05) < at_most


def test_combined_of_a_thousand_seeds():
    places = np.arange(1, 1002)
    assert statistics.combined([places] * 4) == pytest.approx(1001**-4)
    middle = np.roll(places, 501)  # each p-value is 0.5: by Fisher's χ² with 8 degrees of freedom it is 0.6977
    assert statistics.combined([middle] * 4) == pytest.approx(stats.combine_pvalues([middle[0] / 1001] * 4).pvalue, abs=3e-3)


def test_correlation_between_models():
    rng = np.random.default_rng(3)
    one, other, third = (statistics.deviations(simulated(rng, 40)) for _ in range(3))
    assert statistics.correlation([one, one]) == pytest.approx(1)
    assert statistics.correlation([one, -one]) == pytest.approx(-1)
    assert abs(statistics.correlation([one, other, third])) < 0.3
    assert statistics.correlation([np.zeros((3, 2, 2))] * 2) == 0
