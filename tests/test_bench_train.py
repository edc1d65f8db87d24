"""The benchmark of the models: it runs, it compares equals, it takes turns, it says whom it left out, and what is the floor."""

import functools
import importlib.util
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import bench_train, floor, turns
from scripts.contenders import processes
from scripts.contenders.processes import CONTENDERS
from scripts.contenders.workload import Contender, Sizes, make_workload
from scripts.turns import WARM_UP

TINY = ("--batch_size=4", "--length=8", "--rounds=1", "--batches=2")
PEERS = [name for name in CONTENDERS if name != "ours"]


def needs(*modules: str) -> pytest.MarkDecorator:
    reason = "needs the extra bench: make test EXTRAS=bench"
    return pytest.mark.skipif(not all(map(importlib.util.find_spec, modules)), reason=reason)


MODEL = "transformer_positional"


@pytest.fixture(scope="module")
def start():
    """Starts a contender in a process that compiles quickly; ours is started and compiled here, once for all tests."""
    arguments = bench_train.parse(TINY)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        ours = processes.start("ours", MODEL, Sizes(arguments.batch_size, arguments.length, arguments.batches))
        ours.train()
        ours.evaluate()
        yield lambda name, *of_model: ours if name == "ours" else processes.start(name, *of_model)


def check_rows(peer: str, start: bench_train.Start) -> None:
    """Ours and the peer, once a round each, with ratios and rates that agree with the times."""
    rows = bench_train.bench(MODEL, ["ours", peer], bench_train.parse(TINY), floor.Machine(1e9, 1e9, 1e9), start)
    assert [row[:3] for row in rows] == [[MODEL, what, name] for what in ("train", "evaluate") for name in ("ours", peer)]
    for milliseconds, ratio, low, high, rate, share, _ in (row[3:] for row in rows):
        assert float(low) <= float(ratio) <= float(high)
        assert 4e3 / float(rate.replace(",", "")) == pytest.approx(float(milliseconds), rel=0.2, abs=0.06)  # 0.1 is shown
        assert share.endswith("%")


@pytest.mark.parametrize("peer", [pytest.param(name, marks=needs(*CONTENDERS[name][1])) for name in PEERS])
def test_a_row_a_contender(peer: str, start: bench_train.Start, monkeypatch: pytest.MonkeyPatch):
    """torch-compiled runs uncompiled: the C++ compiler takes some 15 s, see `test_a_compiled_contender`."""
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    check_rows(peer, start)


@needs("torch")
@pytest.mark.exhaustive
def test_a_compiled_contender(start: bench_train.Start):
    check_rows("torch-compiled", start)


@pytest.fixture
def print_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the benchmark's command on contenders that do nothing, with a machine that is not measured."""

    contender = Contender(1, lambda: time.sleep(1e-3), lambda: time.sleep(1e-3))
    monkeypatch.setattr(bench_train.devices, "start", lambda: None)
    monkeypatch.setattr(floor, "measure", lambda: floor.Machine(1e9, 1e9, 1e9))
    monkeypatch.setattr(bench_train, "bench", functools.partial(bench_train.bench, start=lambda *_: contender))

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["bench_train.py", *TINY, *arguments])
        bench_train.main()
        return capsys.readouterr().out

    return run


def read_table(output: str) -> list[tuple[str, ...]]:
    """The first three cells of each row: model, what and contender."""
    lines = [line for line in output.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")[:3]) for line in lines]


@needs(*bench_train.MODULES)
def test_the_table_has_a_row_a_contender(print_table: Callable[..., str]):
    output = print_table("--models", "transformer_positional", "single_head")
    models, whats = ("transformer_positional", "single_head"), ("train", "evaluate")
    assert read_table(output) == [(model, what, name) for model in models for what in whats for name in CONTENDERS]
    assert all(f"{module} " in output for module in ("tensorflow", "torch", "keras"))
    assert "This machine: 1 GFLOP/s" in output
    assert "left out" not in output


def test_a_peer_that_is_not_installed_is_named_and_left_out(print_table: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    output = print_table("--peers", "linen", "keras-tensorflow", "--models", "single_head")
    assert [name for _, what, name in read_table(output) if what == "train"] == ["ours", "linen"]
    assert "keras-tensorflow is left out: " in output
    assert "tensorflow not installed (part of the extra bench)" in output


def test_the_machine_is_measured(monkeypatch: pytest.MonkeyPatch):
    for name, size in {"PRODUCT_SIDE": 8, "EXPONENTIALS": 16, "REPEATS": 2}.items():
        monkeypatch.setitem(getattr(floor, name), "cpu", size)
    monkeypatch.setattr(floor, "COPIED", 32)
    assert all(0 < rate < math.inf for rate in floor.measure())


def test_models_of_different_sizes_are_refused():
    sizes = {"ours": 5, "linen": 7}
    arguments, machine = bench_train.parse(TINY), floor.Machine(1, 1, 1)
    with pytest.raises(ValueError, match=r"multi_head: .* number of parameters: \{'ours': 5, 'linen': 7\}"):
        bench_train.bench("multi_head", list(sizes), arguments, machine, lambda name, *_: Contender(sizes[name], int, int))


def test_a_contender_that_fails_is_named(capfd):
    with pytest.raises(RuntimeError, match=r"^linen, no_model: the process has failed; see above$"):
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


def test_a_size_that_is_not_positive_is_refused_from_any_folder(tmp_path: Path):
    command = [sys.executable, bench_train.__file__, "--rounds=0"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "--rounds=0 is not positive" in finished.stderr
