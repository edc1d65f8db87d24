"""How the last attempt at a run has ended, as its folder tells it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import Refusal, UsageError
from experiments.storage import files, lock
from experiments.storage.names import ATTEMPTS, RUNNING
from experiments.training import divergence

_STOPPED = (75, 130)  # exit codes after which the same command continues


class Ending(NamedTuple):
    """How the last attempt at a run has ended.

    Attributes:
      state: "running", "unfinished", "failed" or "diverged".
      code: Its exit code, or None if it has left none.
      reason: Why it has ended.
      step: The last step that is saved, or None.
      page: The name of the config file with which it was started, or None.
    """

    state: str
    code: int | None
    reason: str
    step: int | None = None
    page: str | None = None


UNKNOWN = Ending("unfinished", None, "it left no record of an attempt")


def read(folder: Path) -> Ending:
    """Returns how the last attempt at the run of a folder has ended. Damaged records are told in the reason."""
    code: Any = None
    try:
        attempt, reason, state = _last_attempt(folder)
        code = attempt.get("exit_code")
    except (OSError, ValueError, RecursionError) as error:
        attempt, reason, state = {}, f"its record is damaged: {error}", "unfinished"
    if (folder / divergence.FILE).exists():
        state, reason = "diverged", reason if code == 3 else _divergence(folder)
    step = attempt.get("last_step")
    return Ending(
        state, code if type(code) is int else None, reason, step if type(step) is int else None, _page(attempt.get("argv"))
    )


def _last_attempt(folder: Path) -> tuple[dict[str, Any], str, str]:
    """Returns the record of the last attempt, its reason, and the state of the run."""
    if (folder / RUNNING).exists():
        attempt = files.read_object(folder / RUNNING)
        try:
            lock.refuse_if_busy(folder)
        except UsageError:  # a file system without locks
            return attempt, "it is running, or was killed", "unfinished"
        except Refusal as busy:
            return attempt, "in use" + str(busy).partition(" is in use")[2], "running"
        return attempt, "killed: it left no record of its end", "unfinished"
    if not (folder / ATTEMPTS).exists():
        return {}, UNKNOWN.reason, UNKNOWN.state
    lines = (folder / ATTEMPTS).read_bytes().split(b"\n")[:-1]  # only the last one counts, and may be all that is whole
    attempt = json.loads(lines[-1]) if lines else {}
    if not isinstance(attempt, dict):
        raise ValueError(f"{ATTEMPTS}, line {len(lines)} is not a JSON object")
    code, reason = attempt.get("exit_code"), attempt.get("reason", UNKNOWN.reason)
    failed = code is not None and code != 0 and code not in _STOPPED
    return attempt, str(reason), "failed" if failed else "unfinished"


def _divergence(folder: Path) -> str:
    try:
        found = files.read_object(folder / divergence.FILE)
    except (OSError, ValueError) as error:
        return f"it diverged, and its record is damaged: {error}"
    return f"epoch {found.get('epoch')}, step {found.get('step')}: loss {found.get('loss')}, or its gradient, is not finite"


def _page(argv: Any) -> str | None:
    """Returns "transformer" for the command line "train --config=configs/transformer.py:verdicts …"."""
    for index, word in enumerate(argv if isinstance(argv, list) else ()):
        name, equals, value = str(word).partition("=")
        if name.lstrip("-") == "config":
            return Path((value if equals else str(argv[index + 1 : index + 2])).partition(":")[0]).stem or None
    return None
