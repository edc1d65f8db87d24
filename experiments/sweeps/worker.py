"""The process that trains a group of trials. It starts JAX for itself, and ends in order with the one that has started it."""

import os
import threading
import time
from collections.abc import Sequence
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from experiments.machine import stopping

_BUSY_SECONDS = 60.0  # in which the process of a sweep that was killed has saved its runs


class Job(NamedTuple):
    """What a process is to train.

    Attributes:
      label: The name of the sweep's page.
      members: The flat fields and the run folder of each trial, by its name.
      log: The file for what the process prints.
      environment: Variables that are set before JAX is imported.
      cores: The cores that the process may use; None: all.
    """

    label: str
    members: dict[str, tuple[dict[str, Any], str]]
    log: str
    environment: dict[str, str]
    cores: tuple[int, ...] | None


def main(job: Job, requests: connection.Connection, answers: connection.Connection) -> None:
    """Trains the trials of a job, and tells which have failed. Runs in a process of its own.

    Args:
      job: The job.
      requests: Any message means: stop in order.
      answers: Receives one message, the failures by the names of the trials.
    """
    os.environ.update(job.environment)
    if job.cores is not None:
        os.sched_setaffinity(0, job.cores)
    descriptor = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    threading.Thread(target=_stop_when_told, args=(requests,), daemon=True).start()
    answers.send(_train(job))
    os._exit(0)  # at once: see `experiments.__main__`


def _stop_when_told(requests: connection.Connection) -> None:
    """Waits for a message or for the end of the process that started this one, and stops like after SIGTERM."""
    parent = parent_process()
    connection.wait([requests, parent.sentinel] if parent else [requests])
    if stopping.Signals.first is None:  # a second signal would end the process before it has saved
        os.kill(os.getpid(), stopping.signal.SIGTERM)


def _train(job: Job) -> dict[str, Any]:
    from experiments.machine import devices
    from experiments.sweeps import failures
    from experiments.sweeps.trials import config_of
    from experiments.training.together import Member

    log = Path(job.log).name
    try:
        devices.start()
        members = [Member(config_of(fields), Path(workdir)) for fields, workdir in job.members.values()]
        outcomes = run_group(members, list(job.members), job.label)
    except Exception as error:
        return dict.fromkeys(job.members, failures.of_error(error, log))
    named = zip(job.members, outcomes, strict=True)
    return {name: failures.of_error(outcome, log) for name, outcome in named if isinstance(outcome, Exception)}


def run_group(members: Sequence[Any], names: Sequence[str], label: str) -> list[dict[str, Any] | Exception]:
    """Trains runs together. Returns the content of `result.json` of each, or the error that ended it.

    Args:
      members: The runs, as `together.Member`.
      names: What each is called in the log.
      label: As in `train.train`.
    """
    from experiments.errors import Refusal
    from experiments.storage.lock import Busy
    from experiments.training import together
    from experiments.training.progress import Progress
    from experiments.training.several_progress import SeveralProgress

    epochs, deadline = max(member.config.epochs for member in members), time.monotonic() + _BUSY_SECONDS
    while True:
        progress = SeveralProgress(epochs, names) if len(members) > 1 else Progress(epochs)
        try:
            return together.train(members, label, progress)
        except Busy as error:
            if time.monotonic() > deadline:
                return [error] * len(members)
            time.sleep(0.2)
        except stopping.Stopped as error:
            return [error] * len(members)
        except Refusal as error:  # of one of the folders, or of all: alone, each is told its own
            if len(members) == 1:
                return [error]
            return [run_group([member], [name], label)[0] for member, name in zip(members, names, strict=True)]
