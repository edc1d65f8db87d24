"""The engine for several machines: a Ray task for each group of trials. All nodes see the folder of the sweep.

Ray starts a task again whose node has gone. The task then goes on from the last checkpoints, or finds the trials finished.
"""

import time
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from experiments.errors import Refusal, first_line
from experiments.sweeps import ray_cluster, states, sweep_folder, worker_process
from experiments.sweeps.failures import Failure
from experiments.sweeps.groups import Group
from experiments.sweeps.pool import ON_ACCELERATOR, ON_CPU
from experiments.sweeps.watch import Watch
from experiments.sweeps.worker_process import WorkerProcess

_RETRIES = 10  # of a task whose node or whose process of Ray has gone
_TICK = 0.5  # seconds
_STOP_SECONDS = 60.0  # in which a process saves its runs


class RayEngine:
    """Runs groups of trials on a Ray cluster. The attributes are those of `pool.Pool`.

    Args:
      address: The cluster; see `ray_cluster.connect`.
      resources: What each process gets, as "GPU=1,CPU=4"; None: an accelerator, or a core where there is none.
    """

    def __init__(self, address: str | None, resources: str | None):
        asked = None if resources is None else ray_cluster.resources_of(resources)
        self._ray = ray_cluster.connect(address)
        self._resources = asked or ray_cluster.usual_resources(self._ray)
        self.slots = ray_cluster.slots(self._resources, self._ray)
        self.most = ON_CPU if set(self._resources) <= {"CPU"} else ON_ACCELERATOR
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        each = ray_cluster.described(self._resources)
        self.described = f"{nodes} Ray node{'s' * (nodes > 1)}, {self.slots} at a time with {each} each"

    def run(self, groups: Sequence[Group], label: str, sweepdir: Path, watch: Watch) -> None:
        """Trains the trials of all groups, until the watch says stop. Then the running ones are saved and ended."""
        sweepdir = sweepdir.absolute()
        task = self._ray.remote(**ray_cluster.options(self._resources), max_retries=_RETRIES)(supervise)
        variables = ray_cluster.environment(self._resources)
        tasks: dict[Any, Group] = {}
        for group in groups:
            sweep_folder.log_of(sweepdir, group.trials).unlink(missing_ok=True)
            job = worker_process.job_of(group, label, sweepdir, variables, None)
            tasks[task.remote(job, group, str(sweepdir))] = group
        waiting, deadline = dict(tasks), None
        while tasks:
            for started in [ref for ref, group in waiting.items() if sweep_folder.log_of(sweepdir, group.trials).exists()]:
                watch.started(waiting.pop(started))
            if watch.stopping and deadline is None:
                deadline = time.monotonic() + _STOP_SECONDS
                for ref in tasks:
                    self._ray.cancel(ref)
            if deadline is not None and time.monotonic() > deadline:
                raise Refusal(f"{len(tasks)} tasks of the Ray cluster did not stop within {_STOP_SECONDS:.0f} s")
            for ref in self._ray.wait(list(tasks), timeout=_TICK)[0]:
                waiting.pop(ref, None)
                group = tasks.pop(ref)
                watch.ended(group, self._failures(ref, group, sweepdir))
            watch.tick()

    def close(self) -> None:
        """Leaves the cluster, or ends the one of this machine that was started."""
        self._ray.shutdown()

    def _failures(self, ref: Any, group: Group, sweepdir: Path) -> dict[str, Failure]:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.TaskCancelledError:
            return {}
        except self._ray.exceptions.RayError as error:
            failure = Failure(Refusal.exit_code, [first_line(error)], sweep_folder.log_of(sweepdir, group.trials).name)
            return {t.name: failure for t in group.trials if not states.is_done(sweepdir, t, group.epochs)}


def supervise(job: worker_process.Job, group: Group, sweepdir: str) -> dict[str, Failure]:
    """The Ray task: trains a group in a process of its own, and returns its failures. Cancelled, it lets the process save."""
    process = WorkerProcess(job)
    try:
        _wait(process)
    except BaseException:  # Ray cancels a task with KeyboardInterrupt
        process.stop()
        _wait(process)
        raise
    return process.failures(group, Path(sweepdir))


def _wait(process: WorkerProcess) -> None:
    while not process.ended():
        connection.wait([process.sentinel], timeout=_TICK)
