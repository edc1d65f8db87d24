"""A process that trains a group of trials, as the process sees it that has started it."""

import contextlib
import multiprocessing
import signal
from multiprocessing import resource_tracker
from pathlib import Path

from experiments.sweeps import failures, states, sweep_folder, worker
from experiments.sweeps.failures import Failure
from experiments.sweeps.groups import Group
from experiments.sweeps.worker import Job

# A new interpreter: JAX and the libraries below it start threads, with which a process must not be forked.
CONTEXT = multiprocessing.get_context("spawn")


def job_of(group: Group, label: str, sweepdir: Path, environment: dict[str, str], cores: tuple[int, ...] | None) -> Job:
    """Returns the job of a group; arguments as the attributes of `Job`."""
    members = {}
    for trial in group.trials:
        fields = {**trial.fields, "epochs": group.epochs or trial.epochs}
        members[trial.name] = (fields, str(sweep_folder.trial_folder(sweepdir, trial.name)))
    return Job(label, members, str(sweep_folder.log_of(sweepdir, group.trials)), environment, cores)


class WorkerProcess:
    """A process that trains the trials of a job. It is started at once.

    Attributes:
      sentinel: What `multiprocessing.connection.wait` waits for: the end of the process.
    """

    def __init__(self, job: Job):
        self._log = Path(job.log)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        requests, self._requests = CONTEXT.Pipe(duplex=False)
        self._answers, answers = CONTEXT.Pipe(duplex=False)
        self._told: dict[str, Failure] | None = None
        resource_tracker.ensure_running()  # it would unblock the signal below
        self._process = CONTEXT.Process(target=worker.main, args=(job, requests, answers))
        # Ctrl-C goes to all processes of a terminal. This one only is to receive it, and stops the others in order.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        requests.close()
        answers.close()
        self.sentinel = self._process.sentinel

    def stop(self) -> None:
        """Asks the process to save its runs and to end."""
        with contextlib.suppress(OSError):  # it has ended already
            self._requests.send(None)

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    def ended(self) -> bool:
        """Returns whether the process has ended. Also receives its answer, which can be too long for a pipe to keep."""
        ended = not self._process.is_alive()
        with contextlib.suppress(EOFError, OSError):
            if self._answers.poll():
                self._told = self._answers.recv()
        return ended

    def failures(self, group: Group, sweepdir: Path) -> dict[str, Failure]:
        """Returns the failures of a group's trials after the end of the process: what it told, or how it was ended itself."""
        told, code = self._told or {}, self._process.exitcode or 0
        left = [trial for trial in group.trials if trial.name not in told]
        silent = [trial.name for trial in left if not states.is_done(sweepdir, trial, group.epochs)]
        return told | dict.fromkeys(silent, failures.of_process(code, self._log))
