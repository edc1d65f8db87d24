"""The benchmark of train steps: it runs, it compares equals, it takes turns, and it says whom it left out."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import bench_train, turns
from scripts.bench_train import Contender
from scripts.turns import WARM_UP

TINY = ("--batch_size=4", "--length=8", "--rounds=1")
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


def read_table(output: str) -> dict[tuple[str, str], list[float]]:
    """Its numbers, by model and contender: parameters, milliseconds, three ratios, seconds of the first step."""
    table = {}
    for line in [line for line in output.splitlines() if line.startswith("|")][2:]:
        model, size, name, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        table[model, name] = [float(x.replace(",", "")) for x in (size, *numbers)]
    return table


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("keras", "tensorflow"))), reason="needs the extra bench: make test EXTRAS=bench"
)
def test_a_row_a_contender_from_any_folder(tmp_path: Path):
    output = run(bench_train.__file__, *TINY, "--models", "single_head", "transformer_positional", cwd=tmp_path)
    table = read_table(output)
    sizes = {"single_head": 160_036, "transformer_positional": 164_386 + 8 * 16}
    assert list(table) == [(model, name) for model in sizes for name in ("ours", "linen", "keras-tensorflow")]
    for (model, name), (size, *times_and_ratios) in table.items():
        assert size == sizes[model]
        assert min(times_and_ratios) > 0, (model, name)
    assert "tensorflow 2" in output
    assert "left out" not in output


def test_a_peer_that_is_not_installed_is_named_and_left_out(tmp_path: Path):
    output = run("-c", WITHOUT_TENSORFLOW, bench_train.__file__, *TINY, "--models", "single_head", cwd=tmp_path)
    assert list(read_table(output)) == [("single_head", "ours"), ("single_head", "linen")]
    assert "keras-tensorflow is left out: " in output
    assert "tensorflow not installed (the extra bench has it)" in output


def test_models_of_different_sizes_are_refused():
    makers = {"ours": lambda _: Contender(5, lambda: None), "linen": lambda _: Contender(7, lambda: None)}
    arguments = bench_train.parse(TINY)
    with pytest.raises(ValueError, match=r"multi_head: .* number of parameters: \{'ours': 5, 'linen': 7\}"):
        bench_train.bench("multi_head", makers, arguments)


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
