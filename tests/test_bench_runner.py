"""The benchmark of what a run costs beside its steps: each row is made, at small sizes; flags that do not fit are refused."""

import dataclasses
import sys

import pytest
import tiny

from experiments.data.tokenizer import Tokenizer
from experiments.training import build
from scripts import bench_runner
from scripts.contenders.workload import Contender


def numbers(row: list[str]) -> list[float]:
    median, low, high = map(float, row[2:])
    assert low <= median <= high
    return [median, low, high]


def test_a_start_is_timed_to_its_first_step(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles faster
    cold, warm = bench_runner.start_rows("single_head", "verdicts", 1, tmp_path)
    assert "cold" in cold[1]
    assert "warm" in warm[1]
    assert min(numbers(cold)[0], numbers(warm)[0]) > 0.1
    assert any((tmp_path / "compiled0").iterdir())


def test_a_run_that_does_not_start_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"configs/no_model\.py is not a file"):
        bench_runner.seconds_to_first_step("no_model", "imdb", tmp_path, {})


def test_the_runner_is_held_against_its_bare_steps(fast_compilation, monkeypatch):
    """On the tiny corpus: 90 reviews are three batches of 32."""
    monkeypatch.setattr(build, "build_corpus", lambda config: tiny.corpus())
    over, outside, saving = bench_runner.runner_rows("single_head", "verdicts", 1)
    assert over[:2] == ["single_head", "runner over bare steps, % (3 steps)"]
    assert outside[:2] == ["single_head", "of an epoch outside its steps, % (3 steps)"]
    assert numbers(over)[0] > -100
    assert saving[:2] == ["single_head", "of an epoch in saving checkpoints, % (3 steps)"]
    assert 0 < numbers(saving)[0] < numbers(outside)[0] < 100


def test_trimmed_reviews_are_held_against_whole_ones(monkeypatch):
    """At a length that is trimmed; both plans are run, and the time is that of theirs."""
    made, tokenizer = [], Tokenizer((), 30, 128)
    monkeypatch.setattr(build, "build_corpus", lambda config: dataclasses.replace(tiny.corpus(), tokenizer=tokenizer))
    monkeypatch.setattr(bench_runner, "ours", lambda _, plan: made.append(plan.lengths) or Contender(1, int, int))
    times = {"whole": [9.0, 9.0, 3.0, 2.0], "trimmed": [9.0, 9.0, 2.0, 2.0]}
    monkeypatch.setattr(bench_runner, "time_in_turn", lambda turns, rounds: times)
    rows = bench_runner.padding_rows("single_head", 2)
    assert made == [(128,), (64, 96, 128)]
    assert rows[0] == ["single_head", "padding masked, train: whole / trimmed to (64, 96, 128)", "1.25", "1.00", "1.50"]
    assert rows[1][1].startswith("padding masked, evaluate")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rounds=0"], "--rounds=0 is not positive"),
        (["--data=imdb"], "--archive=None with --data=imdb: imdb needs one, verdicts has none"),
        (["--archive=x"], "--archive=x with --data=verdicts: imdb needs one, verdicts has none"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *flags])
    with pytest.raises(SystemExit):
        bench_runner.main()
    assert message in capsys.readouterr().err
