"""How trials fail, and the table of it."""

import signal
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.errors import Refusal
from experiments.sweeps.trials import Trial, described

_LINES = 4  # the last ones of what a process has printed
_WIDTH = 300  # characters of a line


class Failure(NamedTuple):
    """How a trial has failed.

    Attributes:
      code: The exit code that `train` would have ended with, or minus the signal that killed the process.
      lines: What is known: the error, or the last lines that the process has printed.
      log: The name of the file in `logs/` with all it has printed.
    """

    code: int
    lines: list[str]
    log: str


def of_error(error: BaseException, log: str) -> Failure:
    """Returns the failure of a run that an error has ended. Only one that is no Refusal needs its traceback."""
    if isinstance(error, Refusal):
        return Failure(error.exit_code, _last(str(error)), log)
    return Failure(Refusal.exit_code, _last("".join(traceback.format_exception(error))), log)


def of_process(code: int, log: Path) -> Failure:
    """Returns the failure of a process that has ended without a word."""
    said = f"its process ended with exit code {code}"
    if code < 0:
        why = ": out of memory, or somebody has killed it" if -code == signal.SIGKILL else ""
        said = f"its process was killed by {_signal(-code)}{why}"
    try:
        lines = _last(log.read_text(errors="replace"))
    except OSError:
        lines = []
    return Failure(code, [said, *lines], log.name)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last(text: str) -> list[str]:
    lines = [line.rstrip()[:_WIDTH] for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines[-_LINES:]]


def table(trials: Sequence[Trial], failures: Mapping[str, Failure], logs: Path) -> str:
    """Returns a paragraph for each failure: which trials it has ended, its last lines, and where the others are."""
    ended: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.name in failures:
            ended.setdefault(repr(failures[trial.name]), []).append(trial)
    paragraphs = []
    for together in ended.values():
        failure = failures[together[0].name]
        names = [f"{trial.name} ({described(trial.point)})" for trial in together]
        title = f"failed with exit code {failure.code}: {', '.join(names)}"
        paragraphs += [title, *(f"    {line}" for line in failure.lines), f"    see {logs / failure.log}"]
    return "\n".join(paragraphs)
