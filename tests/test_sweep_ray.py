"""Sweeps on a real Ray cluster of this machine: one node, and two of which one is lost."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sweeping
import tiny
from sweeping import attempts, names, sweep
from test_resume import outcome

from experiments.command_line import commands
from experiments.storage import lock
from experiments.sweeps import ray_cluster

ray = pytest.importorskip("ray", reason=sweeping.NEEDS_RAY)
# The workers are new interpreters, on the whole embedded corpus: two steps an epoch of the model that compiles soonest.
FEW = (
    *("--config.batch_size=4000", "--config.checkpoint_every=1", "--config.steps_per_call=1", "--config.optimizer=sgd"),
    *("--config.model.body=attention", "--config.model.num_heads=1", "--config.model.key_dim=5"),
    "--config.model.implementation=dense",
)
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Ray's own files
    # Ray forks to start its servers, which are executed at once. JAX warns of that if an earlier test has used it.
    pytest.mark.filterwarnings("ignore:os.fork"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster with a head of one core."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    sooner = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": sooner}  # by itself Ray sees after 20 s who is lost
    found = Cluster(initialize_head=True, head_node_args=head)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def answered(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A cluster that has answered at its address, which takes a process of its own: it is not asked again."""
    ray_cluster._check(cluster.address)
    monkeypatch.setattr(ray_cluster, "_check", lambda _: None)
    return cluster


def later(condition: Any, act: Any) -> threading.Thread:
    """Does something in a thread as soon as a condition holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def running(sweepdir: Path) -> list[str]:
    """The names of the trials that have an epoch behind them and are being trained."""
    rows = sweepdir.glob("trials/*/metrics.jsonl")
    return [path.parent.name for path in rows if path.stat().st_size and lock.is_held(path.parent)]


def test_a_sweep_on_ray(answered: Any, tmp_path: Path, capsys: pytest.CaptureFixture):
    """The quick one: a trial in a task, on the cluster at an address."""
    flags = (*FEW, "--config.epochs=1", "--engine=ray", f"--ray_address={answered.address}")
    sweep("run", tmp_path / "sweep", "--grid=seed=0", *flags)
    out = capsys.readouterr().out
    assert out.startswith("1 trial to train, on 1 Ray node, 1 at a time with CPU=1 each.\n")
    assert out.endswith("\n1 trial: 1 finished\n")
    assert attempts(tmp_path / "sweep") == {names(tmp_path / "sweep")["seed=0"]: [0]}


@pytest.mark.exhaustive
def test_a_sweep_on_ray_stops_and_goes_on(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture):
    """SIGTERM to the sweep: the task lets its process save. Then the same command trains the rest, of which one waits."""
    flags = ("--grid=seed=0..1", *FEW, "--config.epochs=8", "--engine=ray", f"--ray_address={cluster.address}")
    later(lambda: running(tmp_path), lambda: signal.raise_signal(signal.SIGTERM))
    sweep("run", tmp_path, *flags, code=75)
    out, err = capsys.readouterr()
    assert out.startswith("2 trials to train, on 1 Ray node, 1 at a time with CPU=1 each.\n")
    assert err.endswith(
        "error: stopped by SIGTERM: 0 of 2 trials are finished, the others are saved, and the same command continues\n"
    )
    assert list(attempts(tmp_path).values()) == [[75]] * 2
    assert not running(tmp_path)
    sweep("run", tmp_path, *flags)
    assert capsys.readouterr().out.endswith("\n2 trials: 2 finished\n")
    assert list(attempts(tmp_path).values()) == [[75, 0]] * 2


@pytest.mark.exhaustive
def test_a_node_that_is_lost(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """SIGKILL to everything of the second node while both train. Each trial is finished once, with the bits of a run alone."""
    folder, flags = tmp_path / "sweep", (*FEW, "--config.epochs=8")
    node = cluster.add_node(num_cpus=1)
    lost: list[list[str]] = []

    def lose() -> None:
        lost.append(running(folder))
        cluster.remove_node(node, allow_graceful=False)

    later(lambda: len(running(folder)) == 2, lose)
    sweep("run", folder, "--grid=seed=2..3", *flags, "--engine=ray", f"--ray_address={cluster.address}")
    out = capsys.readouterr().out
    assert out.startswith("2 trials to train, on 2 Ray nodes, 2 at a time with CPU=1 each.\n")
    assert "\n2 trials: 2 finished\n" in out  # after which Ray may still print how the node has ended
    assert sorted(lost[0]) == sorted(names(folder).values())
    codes = list(attempts(folder).values())  # 75 where the process could save before it was killed too
    assert sorted(map(len, codes)) == [1, 2]
    assert all(code[-1] == 0 and 0 not in code[:-1] for code in codes)
    monkeypatch.undo()
    assert commands.main(["train", *tiny.FLAGS, *flags, "--config.seed=3", f"--workdir={tmp_path / 'alone'}"]) == 0
    assert outcome(folder / "trials" / names(folder)["seed=3"]) == outcome(tmp_path / "alone")
