"""Two real processes over loopback, each with two devices, train one run: stopped together, continued, and written by one."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tiny

from experiments.errors import UsageError
from experiments.machine import processes
from experiments.storage import run_folder

pytestmark = pytest.mark.usefixtures("fast_compilation")


class Joined(NamedTuple):
    """What two processes have left: the run folder, and of each its exit codes and what it printed."""

    workdir: Path
    codes: list[list[int]]
    out: list[str]
    err: list[str]


def start_both(phase: str, folder: Path) -> list[subprocess.Popen]:
    """Starts both processes on `folder / "run"`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"PYTHONPATH": f"{tiny.ROOT}{os.pathsep}{tiny.ROOT / 'tests'}"}
    command = [sys.executable, str(tiny.ROOT / "tests" / "joined_run.py"), phase, port]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, str(index), str(folder / "run")], env=environment, **pipes) for index in range(2)]


def wait(both: list[subprocess.Popen], folder: Path) -> Joined:
    """Waits until both have ended."""
    texts = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    codes = [json.loads((folder / f"run.{index}.json").read_text()) for index in range(2)]
    return Joined(folder / "run", codes, *(list(each) for each in zip(*texts, strict=True)))


@pytest.fixture
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[subprocess.Popen]]:
    """Both processes, in the phase of the test, which have been together for a while."""
    both = start_both(request.param, tmp_path)
    deadline = time.monotonic() + 8  # the test waits for the rest
    while both[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    yield both
    for process in both:
        process.kill()
        process.wait()


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("started", ["stop"], indirect=True)
def test_both_stop_at_the_same_step_and_one_device_goes_on(
    started, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """The signal comes to the second process alone."""
    stopped = wait(started, tmp_path)
    assert stopped.codes == [[75]] * 2
    expected = "error: stopped by SIGTERM after step 4, which is saved: the same command continues"
    assert [errors(err) for err in stopped.err] == [[expected]] * 2
    assert "Trains on 4 CPU devices" in stopped.out[0]
    tiny.train(monkeypatch, stopped.workdir, "--config.devices=1")
    out = capsys.readouterr().out
    assert "Trains on 1 CPU device (" in out
    assert "Continues after step 4, in epoch 1 of 2." in out
    for row, alone in zip(run_folder.read_rows(stopped.workdir), run_folder.read_rows(finished_run), strict=True):
        assert row["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-5)


@pytest.mark.parametrize("started", ["go_on"], indirect=True)
def test_both_go_on_and_one_writes(started, finished_run: Path, tmp_path: Path):
    """0: one epoch, then the other, then nothing; 2: another config; 0: two seeds in one program.

    The numbers are those of one process with two devices.
    """
    joined = wait(started, tmp_path)
    assert joined.codes == [[0, 0, 0, 2, 0]] * 2
    for err in joined.err:
        [said] = errors(err)
        assert said.endswith("holds a run of another config: seed is 0 there and 1 here; choose another folder")
    records = [json.loads(line) for line in (joined.workdir / "provenance.jsonl").read_text().splitlines()]
    assert [(record["first_step"], record["last_step"], record["exit_code"]) for record in records] == [(0, 5, 0), (5, 10, 0)]
    assert "Continues after step 5, in epoch 2 of 2." in joined.out[0]
    assert "is finished: there is nothing to train." in joined.out[0]
    assert joined.out[0].count("Epoch  2/2") == 1
    assert "Epoch" not in joined.out[1]
    assert len(run_folder.read_rows(joined.workdir)) == tiny.EPOCHS
    for row, alone in zip(run_folder.read_rows(joined.workdir), run_folder.read_rows(finished_run), strict=True):
        for name in ("train_loss", "val_loss"):
            assert row[name] == pytest.approx(alone[name], rel=1e-5)
        assert (row["step"], row["val_accuracy"]) == (alone["step"], alone["val_accuracy"])
    params, alone = run_folder.load(joined.workdir).params, run_folder.load(finished_run).params
    jax.tree.map(lambda leaf, other: np.testing.assert_allclose(leaf, other, atol=1e-4), params, alone)
    both = [run_folder.read_rows(joined.workdir.with_suffix(".seeds") / f"seed_{seed}")[0]["val_loss"] for seed in (0, 2)]
    assert both[0] == pytest.approx(run_folder.read_rows(finished_run)[0]["val_loss"], rel=1e-5)
    assert abs(both[0] - both[1]) > 1e-4
    told = r"another process of the run has gone: start all of them again, and they go on \(.+\)"
    assert re.fullmatch(told, joined.workdir.with_suffix(".lost.txt").read_text())


def test_alone_there_is_nobody_to_ask():
    assert (processes.count(), processes.is_writer()) == (1, True)
    assert processes.agree(0.1, 3) == [0.1, 3]
    assert processes.from_writer([7]) == [7]

    def refuse() -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match=r"^no$"):
        processes.by_writer(refuse)
    assert processes.by_writer(lambda: 5) == 5
