"""The benchmark of the models: it runs, it compares equals, it takes turns, it says whom it left out, and what is the floor."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bench_train, floor, turns
from scripts.contenders import processes
from scripts.contenders.processes import CONTENDERS
from scripts.contenders.workload import Contender, Sizes, make_workload
from scripts.turns import WARM_UP

TINY = ("--batch_size=4", "--length=8", "--rounds=1", "--batches=2")
WITHOUT_TENSORFLOW = """
import runpy, sys
sys.modules["tensorflow"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: str, cwd: Path) -> str:
    command, environment = [sys.executable, *arguments], os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiles faster
    finished = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def read_table(output: str) -> dict[tuple[str, ...], list[str]]:
    """Its cells after the first three, by model, what and contender."""
    lines = [line for line in output.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {tuple(row[:3]): row[3:] for row in cells}


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, bench_train.MODULES)), reason="needs the extra bench: make test EXTRAS=bench"
)
def test_a_row_a_contender_from_any_folder(tmp_path: Path):
    output = run(bench_train.__file__, *TINY, "--models", "transformer_positional", cwd=tmp_path)
    table = read_table(output)
    model, whats = "transformer_positional", ("train", "evaluate")
    assert list(table) == [(model, what, name) for what in whats for name in CONTENDERS]
    for milliseconds, ratio, low, high, rate, share, _ in table.values():
        assert float(low) <= float(ratio) <= float(high)
        assert float(rate.replace(",", "")) == pytest.approx(4 / (float(milliseconds) / 1e3), rel=0.2)
        assert share.endswith("%")
    assert all(f"{module} " in output for module in ("tensorflow", "torch", "keras"))
    assert "GFLOP/s" in output
    assert "left out" not in output


def test_a_peer_that_is_not_installed_is_named_and_left_out(tmp_path: Path):
    peers = ("--peers", "linen", "keras-tensorflow")
    output = run("-c", WITHOUT_TENSORFLOW, bench_train.__file__, *TINY, *peers, "--models", "single_head", cwd=tmp_path)
    assert [name for _, what, name in read_table(output) if what == "train"] == ["ours", "linen"]
    assert "keras-tensorflow is left out: " in output
    assert "tensorflow not installed (the extra bench has it)" in output


def test_models_of_different_sizes_are_refused():
    sizes = {"ours": 5, "linen": 7}
    arguments, machine = bench_train.parse(TINY), floor.Machine(1, 1, 1)
    with pytest.raises(ValueError, match=r"multi_head: .* number of parameters: \{'ours': 5, 'linen': 7\}"):
        bench_train.bench("multi_head", list(sizes), arguments, machine, lambda name, *_: Contender(sizes[name], int, int))


def test_a_contender_that_fails_is_named(capfd):
    with pytest.raises(RuntimeError, match=r"^linen, no_model: the process has failed, see above$"):
        processes.start("linen", "no_model", Sizes(2, 4, 1))
    assert "no_model" in capfd.readouterr().err


def test_the_floor_counts_what_a_step_needs():
    """By hand: one head, T = S = 4, H = V = 3."""
    assert floor.attention(4, 4, 1, 3, 3, train=False) == (2 * 16 * (3 + 3), 16, 0)
    assert floor.attention(4, 4, 1, 3, 3, train=True) == (2 * 16 * 6 * 3, 16, 0)
    assert floor.attention(4, 4, 2, 3, 3, train=False, pooled=True) == (2 * 32 * (3 + 1), 32, 0)
    machine = floor.Machine(operations=2.0, exponentials=4.0, bytes=8.0)
    assert machine.seconds(floor.Work(2, 4, 8) + floor.Work(2, 0, 0), examples=10) == 40


def test_the_floor_of_the_first_model():
    """Of one review of 256 tokens: a full layer and one that is pooled, each 65,536 pairs of 16 channels."""
    work = floor.model(make_workload("single_head", Sizes(1, 256, 1)).model, train=True)
    assert work.operations == 2 * 65_536 * (96 + 50)
    assert work.exponentials == 2 * 65_536


def test_contenders_take_turns():
    order = []
    seconds = turns.time_in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * (WARM_UP + 3)
    assert [len(times) for times in seconds.values()] == [WARM_UP + 3] * 2


def test_ratios_are_taken_within_a_round():
    warm_up = [30.0] * WARM_UP
    cells = turns.cells(theirs=[*warm_up, 3.0, 9.0, 4.0], own=[*warm_up, 1.0, 2.0, 8.0])
    assert cells == ["4000.0", "3.00", "0.50", "4.50", "30.0"]  # the ratio of the medians is 2


def test_a_size_that_is_not_positive_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        bench_train.parse(["--rounds=0"])
    assert "--rounds=0 is not positive" in capsys.readouterr().err
