"""Two real processes over loopback, each with two devices, train one run: stopped together, continued, and written by one."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tiny
from conftest import once

from experiments import processes, run_folder
from experiments.errors import UsageError

pytestmark = pytest.mark.usefixtures("fast_compilation")


class Joined(NamedTuple):
    """What two processes have left: the run folder, and of each its exit codes and what it printed."""

    workdir: Path
    codes: list[list[int]]
    out: list[str]
    err: list[str]


def run_both(phase: str, folder: Path) -> None:
    """Runs both processes on `folder / "run"`, and keeps what they print."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"PYTHONPATH": f"{tiny.ROOT}{os.pathsep}{tiny.ROOT / 'tests'}"}
    command = [sys.executable, str(tiny.ROOT / "tests" / "joined_run.py"), phase, port]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, str(index), str(folder / "run")], env=environment, **pipes) for index in range(2)]
    try:
        texts = [process.communicate(timeout=60) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], texts
    (folder / "texts.json").write_text(json.dumps(texts))


def read(folder: Path) -> Joined:
    codes = [json.loads((folder / f"run.{index}.json").read_text()) for index in range(2)]
    out, err = map(list, zip(*json.loads((folder / "texts.json").read_text()), strict=True))
    return Joined(folder / "run", codes, out, err)


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Joined:
    def make(folder: Path) -> None:
        folder.mkdir()
        run_both("stop", folder)

    return read(once(tmp_path_factory, "joined_stopped", make))


@pytest.fixture(scope="session")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Joined:
    def make(folder: Path) -> None:
        folder.mkdir()
        run_both("go_on", folder)

    return read(once(tmp_path_factory, "joined", make))


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_both_stop_at_the_same_step(stopped: Joined):
    """The signal comes to the second process alone."""
    assert stopped.codes == [[75]] * 2
    expected = "error: stopped by SIGTERM after step 4, which is saved: the same command continues"
    assert [errors(err) for err in stopped.err] == [[expected]] * 2
    assert "Trains on 4 CPU devices" in stopped.out[0]


def test_both_go_on(joined: Joined):
    """0: one epoch, then the other, then nothing; 2: another config."""
    assert joined.codes == [[0, 0, 0, 2]] * 2
    for err in joined.err:
        [said] = errors(err)
        assert said.endswith("holds a run of another config: seed is 0 there and 1 here; choose another folder")
    records = [json.loads(line) for line in (joined.workdir / "provenance.jsonl").read_text().splitlines()]
    assert [(record["first_step"], record["last_step"], record["exit_code"]) for record in records] == [(0, 5, 0), (5, 10, 0)]


def test_one_of_them_writes_and_prints(joined: Joined):
    assert "Trains on 4 CPU devices" in joined.out[0]
    assert "Continues after step 5, in epoch 2 of 2." in joined.out[0]
    assert "is finished: there is nothing to train." in joined.out[0]
    assert joined.out[0].count("Epoch  2/2") == 1
    assert "Epoch" not in joined.out[1]


def test_the_numbers_are_those_of_one_process(joined: Joined, finished_run: Path):
    """Of one process with two devices, but for the order of the sums."""
    assert len(run_folder.read_rows(joined.workdir)) == tiny.EPOCHS
    for row, alone in zip(run_folder.read_rows(joined.workdir), run_folder.read_rows(finished_run), strict=True):
        for name in ("train_loss", "val_loss"):
            assert row[name] == pytest.approx(alone[name], rel=1e-5)
        assert (row["step"], row["val_accuracy"]) == (alone["step"], alone["val_accuracy"])
    params, alone = run_folder.load(joined.workdir).params, run_folder.load(finished_run).params
    for leaf, other in zip(jax_leaves(params), jax_leaves(alone), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-4)


def jax_leaves(tree: dict) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_the_run_goes_on_on_another_number_of_devices(
    stopped: Joined, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """From the step at which four devices in two processes were stopped, on one device."""
    workdir = tmp_path / "run"
    shutil.copytree(stopped.workdir, workdir)
    tiny.train(monkeypatch, workdir, "--config.devices=1")
    out = capsys.readouterr().out
    assert "Trains on 1 CPU device (" in out
    assert "Continues after step 4, in epoch 1 of 2." in out
    for row, alone in zip(run_folder.read_rows(workdir), run_folder.read_rows(finished_run), strict=True):
        assert row["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-5)


def test_a_process_that_ends_is_told_to_the_other(joined: Joined):
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
