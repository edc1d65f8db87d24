"""Sweeps of tiny runs: the command line that runs them, in this process or in one of its own, and forked workers."""

import contextlib
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import tiny

from experiments.command_line import commands
from experiments.sweeps import sweep_folder, worker, worker_process
from experiments.sweeps.groups import Group
from experiments.sweeps.trials import config_of
from experiments.sweeps.watch import Watch
from experiments.training import build
from experiments.training.together import Member

FLAGS = tiny.FLAGS
KILLED, REFUSED, BROKEN = 1001, 1002, 1003  # seeds that fail in a worker: see `sweep_worker`, which only its server may import
NEEDS_RAY = "needs the extra ray: make test EXTRAS=ray"


def use_forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked from a server that has imported `sweep_worker`."""
    monkeypatch.setattr(build, "build_corpus", lambda config: tiny.corpus())
    monkeypatch.setattr(worker_process, "CONTEXT", multiprocessing.get_context("forkserver"))
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tiny.ROOT}{os.pathsep}{tiny.ROOT / 'tests'}")
        forkserver.set_forkserver_preload(["sweep_worker"])
        forkserver.ensure_running()


class Inline:
    """An engine that trains in this process."""

    described, slots, most = "this process", 1, 4

    def __init__(self, jobs: int | None): ...

    def run(self, groups: Sequence[Group], label: str, sweepdir: Path, watch: Watch) -> None:
        for group in groups:
            job = worker_process.job_of(group, label, sweepdir, {}, None)
            members = [Member(config_of(fields), Path(workdir)) for fields, workdir in job.members.values()]
            outcomes = worker.run_group(members, list(job.members), label)
            assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            watch.ended(group, {})

    def close(self) -> None: ...


def sweep(action: str, sweepdir: Path, *flags: str, code: int = 0) -> None:
    """A command on the tiny corpus, in this process."""
    page = FLAGS if action in ("plan", "run") else ()
    assert commands.main(["sweep", action, *page, f"--sweepdir={sweepdir}", *flags]) == code


@contextlib.contextmanager
def started(sweepdir: Path, *flags: str) -> Iterator[Any]:
    """A forked process that runs a sweep. It is killed at the end of the block."""
    process = worker_process.CONTEXT.Process(target=_run, args=(sweepdir, flags))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _run(sweepdir: Path, flags: Sequence[str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, Path(f"{sweepdir}.log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        # This process has imported all there is to import, and has started no threads.
        monkeypatch.setattr(worker_process, "CONTEXT", multiprocessing.get_context("fork"))
        sweep("run", sweepdir, *flags)


def names(sweepdir: Path) -> dict[str, str]:
    """The names of the trials by their points, such as "seed=0"."""
    trials = sweep_folder.read(sweepdir).trials
    return {" ".join(f"{field}={value}" for field, value in trial.point.items()): trial.name for trial in trials}


def attempts(sweepdir: Path) -> dict[str, list[int]]:
    """The exit codes of all attempts at each trial, by its name."""
    files = sorted((sweepdir / "trials").glob("*/provenance.jsonl"))
    return {path.parent.name: [json.loads(line)["exit_code"] for line in path.read_text().splitlines()] for path in files}
