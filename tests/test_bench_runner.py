"""The benchmark of what a run costs beside its steps: each row is made, at small sizes; flags that do not fit are refused."""

import sys

import pytest

from scripts import bench_runner
from scripts.contenders.workload import Contender


def numbers(row: list[str]) -> list[float]:
    median, low, high = map(float, row[2:])
    assert low <= median <= high
    return [median, low, high]


def test_a_start_is_timed_to_its_first_step(tmp_path):
    cold, warm = bench_runner.start_rows("single_head", "verdicts", 1, tmp_path)
    assert "cold" in cold[1]
    assert "warm" in warm[1]
    assert numbers(cold)[0] > numbers(warm)[0] > 0.1
    assert any((tmp_path / "compiled0").iterdir())


def test_a_run_that_does_not_start_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"configs/no_model\.py is no file"):
        bench_runner.seconds_to_first_step("no_model", "imdb", tmp_path, {})


def test_the_runner_is_held_against_its_bare_steps():
    over, outside = bench_runner.runner_rows("single_head", "verdicts", 1)
    assert over[:2] == ["single_head", "runner over bare steps, % (250 steps)"]
    assert outside[:2] == ["single_head", "of an epoch outside its steps, % (250 steps)"]
    assert numbers(over)[0] > -50
    assert 0 < numbers(outside)[0] < 50


def test_the_exponent_of_the_batch_is_fitted(monkeypatch):
    times = {str(n): [9.0, 9.0, 2e-3 * n**1.5, 3e-3 * n**1.5] for n in bench_runner.BATCHES}
    monkeypatch.setattr(bench_runner, "ours", lambda _: Contender(1, int, int))
    monkeypatch.setattr(bench_runner, "time_in_turn", lambda turns, rounds: times)
    assert numbers(bench_runner.batch_row("single_head", 2)) == [1.5, 1.5, 1.5]


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
