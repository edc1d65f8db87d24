"""The engine for one machine: a pool of processes over its devices."""

from collections import deque
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path

from experiments.sweeps import slots, worker_process
from experiments.sweeps.groups import Group
from experiments.sweeps.slots import Slot
from experiments.sweeps.watch import Watch
from experiments.sweeps.worker_process import WorkerProcess

# Trials that one process trains together: it shares the start and the compiled programs, which take 5 to 15 s. On a CPU it
# trains them in turn, so that more of them would only be finished later.
ON_CPU, ON_ACCELERATOR = 4, 64
_TICK = 0.5  # seconds


class Pool:
    """Runs groups of trials on this machine.

    Args:
      jobs: How many processes run at the same time; see `slots.of_machine`.

    Attributes:
      described: The devices, in words.
      slots: How many groups run at the same time.
      most: How many trials a group may have.
    """

    def __init__(self, jobs: int | None):
        self._slots, self.described = slots.of_machine(jobs)
        self.slots = len(self._slots)
        on_cpu = not self._slots[0].environment
        self.most = ON_CPU if on_cpu else ON_ACCELERATOR

    def run(self, groups: Sequence[Group], label: str, sweepdir: Path, watch: Watch) -> None:
        """Trains the trials of all groups, until the watch says stop. Then the running ones are saved and ended."""
        waiting, free = deque(groups), list(self._slots)
        running: dict[WorkerProcess, tuple[Group, Slot]] = {}
        stopped = False
        try:
            while running or (waiting and not watch.stopping):
                while free and waiting and not watch.stopping:
                    group, slot = waiting.popleft(), free.pop(0)
                    job = worker_process.job_of(group, label, sweepdir, *slot)
                    running[WorkerProcess(job)] = group, slot
                    watch.started(group)
                if watch.stopping and not stopped:
                    stopped = True
                    for process in running:
                        process.stop()
                connection.wait([process.sentinel for process in running], timeout=_TICK)
                for process in [process for process in running if process.ended()]:
                    group, slot = running.pop(process)
                    free.append(slot)
                    watch.ended(group, process.failures(group, sweepdir))
                watch.tick()
        finally:
            for process in running:  # after an error of ours
                process.kill()

    def close(self) -> None:
        """Does nothing: no process is left."""
