"""The benchmark of growth: several models in one program are those models, and exponents are fitted."""

import sys

import jax
import numpy as np
import pytest

from attn.models.classifier import Classifier
from experiments.training import build, steps
from scripts import bench_growth
from scripts.contenders.workload import Sizes, make_workload

pytestmark = pytest.mark.usefixtures("fast_compilation")
SIZES = Sizes(4, 6, 1)


@pytest.fixture(autouse=True)
def compilation_cache():
    """The benchmark turns it off, and the other tests of this process want it."""
    names = ("jax_enable_compilation_cache", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("each", ["in turn", "at once"])
def test_several_models_in_one_program_are_what_each_is_alone(each, monkeypatch):
    if each == "at once":
        monkeypatch.setattr(bench_growth, "each", jax.vmap)
    states = bench_growth.several("single_head", 3, SIZES)()
    workload = make_workload("single_head", SIZES)
    plan = build.build_plan(workload.config, Classifier(workload.model), len(workload.labels))
    seen = set()
    for seed in range(3):
        state = plan.replicate(steps.initial_state(plan, jax.random.key(seed), build.scalars_of(workload.config)))
        batches = plan.batches(
            workload.tokens, workload.labels, np.asarray(steps.epoch_order(plan, state.rng, 0, SIZES.batch_size))
        )
        expected, _, _ = jax.jit(steps.train_step, static_argnums=0)(plan, state, steps.at(batches, 0))
        alone, among = (jax.tree.leaves(params) for params in (expected.params, states.params))
        for leaf, leaves in zip(alone, among, strict=True):
            np.testing.assert_allclose(leaves[seed], leaf, atol=2e-6)
        seen.add(float(alone[0].sum()))
    assert len(seen) == 3, "the models differ"


def test_the_exponents_are_fitted(monkeypatch):
    times = {str(n): [9.0, 9.0, 2e-3 * n**1.5, 3e-3 * n**1.5] for n in (2, 4, 8)}
    monkeypatch.setattr(bench_growth, "time_in_turn", lambda turns, rounds: times)
    monkeypatch.setattr(bench_growth, "several", lambda model, count, sizes: count)
    *sizes, exponent = bench_growth.model_rows("single_head", (2, 4, 8), 4, 6, 2)
    assert sizes[1] == ["single_head", "models: 4", "20.00", "16.00", "24.00"]
    assert exponent == ["single_head", "models: exponent", "1.50", "1.50", "1.50"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rounds=0"], "--rounds=0 must be positive"),
        (["--counts", "1", "0"], "--counts=[1, 0] must be positive"),
        (["--batches", "8", "8"], "--batches=[8, 8] must be at least two different sizes, to fit an exponent"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *flags])
    with pytest.raises(SystemExit):
        bench_growth.main()
    assert message in capsys.readouterr().err


def test_the_table_is_printed(monkeypatch, capsys):
    flags = [
        "--models",
        "single_head",
        "--batches",
        "2",
        "4",
        "--counts",
        "1",
        "2",
        "--batch_size=4",
        "--length=6",
        "--rounds=1",
    ]
    monkeypatch.setattr(sys, "argv", ["bench", *flags])
    bench_growth.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].strip() for line in lines if line.startswith("| single_head")] == [
        "batch: 2", "batch: 4", "batch: exponent", "models: 1", "models: 2", "models: exponent",
    ]  # fmt: skip
