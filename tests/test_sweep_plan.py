"""The command `sweep` before anything runs: what a plan says, and what is refused in one line, with nothing written."""

import importlib.util
import re
import socket
from pathlib import Path

import pytest
import sweeping
import tiny
from sweeping import sweep
from test_commands import refused

from experiments.storage import lock
from experiments.sweeps import ray_cluster, runner
from experiments.training import build

PAGE = """
from configs import transformer
from experiments.sweeps.points import crossed, grid, random, seeds, uniform, zipped

get_config = transformer.get_config

def sweep():
"""


@pytest.fixture(autouse=True)
def not_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "build_corpus", lambda config: tiny.corpus())
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it runs"))


@pytest.fixture
def page(tmp_path: Path):
    """Writes a page with the body of its `sweep`, and returns its flag."""

    def write(body: str) -> str:
        path = tmp_path / "page.py"
        path.write_text(PAGE + "".join(f"    {line}\n" for line in body.splitlines()))
        return f"--config={path}:verdicts"

    return write


def test_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture):
    """90 examples in batches of 20 are 5 steps an epoch. A trial with fewer steps costs less."""
    sweep("plan", tmp_path / "none", "--grid=batch_size=20,45", "--grid=seed=0..1", "--halving=2")
    out = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in out[0].split("|")[1:-1]] == [
        "trial", "batch_size", "seed", "parameters", "steps", "work", "state"
    ]  # fmt: skip
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out[2:6]]
    assert [row[1:3] + row[4:5] + row[6:] for row in rows] == [
        ["20", "0", "10", "waiting"],
        ["20", "1", "10", "waiting"],
        ["45", "0", "4", "waiting"],
        ["45", "1", "4", "waiting"],
    ]
    assert len({row[3] for row in rows}) == 1
    assert rows[0][5] == rows[1][5] != rows[2][5]
    assert re.fullmatch(r"4 trials: 28 steps, [0-9.]+ MFLOP in all, without evaluation", out[7])
    assert out[8] == "with halving: 4 to epoch 1, 2 to epoch 2, which is 6 of 8 epochs"
    assert not (tmp_path / "none").exists()


def test_the_points_of_a_page_are_crossed_with_those_of_flags(page, tmp_path: Path, capsys: pytest.CaptureFixture):
    flag = page('yield from zipped({"model.num_heads": [1, 2], "model.key_dim": [6, 3]})\nyield {"model.num_heads": 4}')
    sweep("plan", tmp_path / "none", flag, "--grid=learning_rate=0.1,0.2", "--config.seeds=3..4")
    out = capsys.readouterr().out
    assert "12 trials: " in out
    values = [[cell.strip() for cell in line.split("|")[2:6]] for line in out.splitlines()[:4]]
    assert values == [
        ["model.num_heads", "model.key_dim", "learning_rate", "seed"],
        [*["-" * n + ":" for n in (16, 14, 14, 5)]],
        ["1", "6", "0.1", "3"],
        ["1", "6", "0.1", "4"],
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return []", "the sweep is empty: sweep() of the config file yields no point"),
        ("yield from grid(seed=[])", "sweep() of {page}: the field seed has no values"),
        ("yield {'seed': 0}\nyield 3", "sweep() of {page}: point 2 is 3: it must be a dict such as {'seed': 1}"),
        ("raise ValueError('boo')", "sweep() of {page} cannot be read: ValueError: boo"),
        ("return 7", "sweep() of {page} cannot be read: TypeError: 'int' object is not iterable"),
        ("while True: yield {'seed': 0}", "the sweep has more than 100,000 points"),
        ("yield {'sede': 0}", "point 1 (sede=0): config.sede is not a field of the config; did you mean config.seed?"),
    ],
)
def test_pages_that_are_refused(body: str, message: str, page, tmp_path: Path, capsys: pytest.CaptureFixture):
    flag = page(body)
    said = refused(capsys, ["sweep", "run", flag, f"--sweepdir={tmp_path / 'sweep'}"])
    assert said == message.replace("{page}", flag.removeprefix("--config="))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "sweep '' must be one of plan, run, status, retry$"),
        ("rum", "sweep 'rum' must be one of plan, run, status, retry; did you mean run\\?"),
        ("run PAGE --grid=seed=0..3", "--sweepdir is missing: it must be the folder of the sweep$"),
        ("run --sweepdir=W --grid=seed=0", "--config is missing"),
        ("run PAGE --sweepdir=W", "the sweep is empty: .*transformer.py:verdicts has no sweep\\(\\), and there is no --grid$"),
        ("plan PAGE --grid=seed=0,0", "point 2 \\(seed=0\\) is the same trial as point 1 \\(seed=0\\)$"),
        ("plan PAGE --grid=seed=0 --grid=seed=1", "the field seed is set by two of the sources that are crossed$"),
        ("plan PAGE --grid=sed=0", "--grid sed=0: config.sed is not a field of the config; did you mean config.seed\\?"),
        ("run PAGE --sweepdir=W --grid=seed=0,x", "point 2 \\(seed=x\\): config.seed='x' must be an integer from 0 to"),
        ("run PAGE --sweepdir=W --grid=seed=0 --config.epochs=0", "config.epochs=0 must be an integer"),
        ("run PAGE --sweepdir=W --grid=seed=0 --epochs=3", "--epochs is not a flag of this command; did you mean --config.epo"),
        ("run PAGE --sweepdir=W --grid=seed=0 --jobs=0", "--jobs=0 must be an integer from 1 to 1024$"),
        ("run PAGE --sweepdir=W --grid=seed=0 --jobs=x", "--jobs=x must be an integer$"),
        ("run PAGE --sweepdir=W --grid=seed=0 --engine=dask", "--engine=dask must be local or ray$"),
        ("run PAGE --sweepdir=W --grid=seed=0 --ray_address=h:1", "--ray_address is of --engine=ray$"),
        ("run PAGE --sweepdir=W --grid=seed=0 --resources=CPU=1", "--resources is of --engine=ray$"),
        ("run PAGE --sweepdir=W --grid=seed=0 --engine=ray --jobs=2", "--jobs is of --engine=local: "),
        ("run PAGE --sweepdir=W --grid=seed=0 --engine=ray --resources=CPU", "--resources=CPU must be such as CPU=2 or GPU=1,"),
        ("run PAGE --sweepdir=W --grid=seed=0 --engine=ray --resources=CPU=0", "--resources=CPU=0 must be such as"),
        ("plan PAGE --grid=seed=0..3 --halving=1", "--halving=1 must be an integer from 2 to 100$"),
        ("plan PAGE --grid=seed=0..1 --halving=3", "--halving=3 needs 3 trials of 3 epochs or more, not 2 of 16$"),
        ("run PAGE --sweepdir=W --grid=epochs=8,9,10 --halving=3", "point 2 \\(epochs=9\\): --halving needs the same epochs"),
        (
            "run PAGE --sweepdir=W --grid=seed=0..3 --halving=3 --config.schedule=cosine",
            "point 1 \\(seed=0\\): config.schedule=cosine must be constant with --halving",
        ),
        ("status --sweepdir=W", "--sweepdir=W holds no sweep: sweep.json is missing$"),
        ("retry --sweepdir=W", "--sweepdir=W holds no sweep: sweep.json is missing$"),
        ("status --sweepdir=W --config=c", "--config is not a flag of this command; its flags are --sweepdir$"),
        (
            "run PAGE --sweepdir=/dev/null/x --grid=seed=0",
            "--sweepdir=/dev/null/x cannot be written: /dev/null is not a folder$",
        ),
    ],
)
def test_clumsy_sweeps(line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, ["sweep", *(word.replace("PAGE", tiny.PAGE) for word in line.split())])
    assert re.match(message, said), said
    assert not list(tmp_path.iterdir())


def test_folders_that_are_refused(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    sweep_flags = [tiny.PAGE, "--grid=seed=0"]
    said = refused(capsys, ["sweep", "run", *sweep_flags, f"--sweepdir={finished_run}"])
    assert said == f"--sweepdir={finished_run} holds a run: choose another folder"
    with lock.hold(tmp_path):
        said = refused(capsys, ["sweep", "run", *sweep_flags, f"--sweepdir={tmp_path}"], code=5)
    assert said.startswith(f"--sweepdir={tmp_path} is in use by process ")
    for content, reason in (
        ("{", "sweep.json is not JSON: Expecting"),
        ("{}", "sweep.json: base is missing"),
        ('{"base": {}, "trials": [{}]}', "sweep.json: point is missing"),
    ):
        (tmp_path / "sweep.json").write_text(content)
        said = refused(capsys, ["sweep", "status", f"--sweepdir={tmp_path}"], code=4)
        assert said.startswith(f"--sweepdir={tmp_path} is damaged: {reason}")


def test_ray_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Not installed; an address that is none, that refuses, and that is no Ray cluster."""
    command = ["sweep", "run", tiny.PAGE, "--grid=seed=0", f"--sweepdir={tmp_path / 'sweep'}", "--engine=ray"]
    with monkeypatch.context() as patch:
        patch.setattr(ray_cluster.importlib.util, "find_spec", lambda _: None)
        assert refused(capsys, command) == "--engine=ray: Ray is not installed: pip install -e '.[ray]'"
    if importlib.util.find_spec("ray") is None:
        pytest.skip(sweeping.NEEDS_RAY)
    assert refused(capsys, [*command, "--ray_address=h"]) == "--ray_address=h must be HOST:PORT, such as 10.0.0.1:6379, or auto"
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"--ray_address=127.0.0.1:{server.getsockname()[1]}"
        assert refused(capsys, [*command, address]) == f"{address} does not answer: Connection refused"
        server.listen()
        assert refused(capsys, [*command, address]) == f"{address} does not answer as a Ray cluster within 1 s"
    assert not (tmp_path / "sweep").exists()
