"""Runs several attempts to their ends, call by call."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax

from experiments.errors import Refusal
from experiments.machine import processes
from experiments.machine.stopping import Signals, Stopped
from experiments.training.programs import Programs, Request, Train

Attempt = Generator[Request, Any, Any]


def drive(attempts: Mapping[int, Attempt], programs: Programs, signals: Signals) -> dict[int, Any]:
    """Runs attempts to their ends. Those that are furthest behind are served first.

    Args:
      attempts: The attempts, which have not started.
      programs: Answers their requests.
      signals: From now on, a signal stops all of them between two calls.

    Returns:
      The result of each, or the Refusal or the OSError that ended it, which stops no other. A Stopped stops all.
    """
    runs = _Runs()
    with contextlib.ExitStack() as closing:
        for index, attempt in attempts.items():
            closing.callback(attempt.close)
            runs.resume(index, attempt.send, None)
        try:
            signals.defer(together=processes.count() > 1)
            while runs.waiting:
                chosen = runs.furthest_behind(programs.parallel)
                for index, answer in zip(chosen, programs.answer([runs.waiting[index] for index in chosen]), strict=True):
                    runs.resume(index, attempts[index].send, answer)
                if stopped := runs.stopped():
                    raise stopped
        except (Stopped, jax.errors.JaxRuntimeError) as error:
            for index in list(runs.waiting):
                runs.resume(index, attempts[index].throw, error)
    return runs.outcomes


class _Runs:
    """The requests of attempts that wait for an answer, and the outcomes of those that have ended."""

    def __init__(self) -> None:
        self.waiting: dict[int, Request] = {}
        self.outcomes: dict[int, Any] = {}

    def resume(self, index: int, act: Callable[[Any], Request], argument: Any) -> None:
        """Lets an attempt go on to its next request, or to its end."""
        self.waiting.pop(index, None)
        try:
            self.waiting[index] = act(argument)
        except StopIteration as end:
            self.outcomes[index] = end.value
        except (Refusal, OSError) as error:
            self.outcomes[index] = error

    def furthest_behind(self, most: int) -> list[int]:
        """Returns the attempts that one call serves next: they ask for the same."""
        by_place = sorted(self.waiting, key=lambda index: self.waiting[index].place)
        kind = self._kind(by_place[0])
        return [index for index in by_place if self._kind(index) == kind][:most]

    def _kind(self, index: int) -> str:
        request = self.waiting[index]
        return "train" if isinstance(request, Train) else f"{type(request).__name__} {request.split}"

    def stopped(self) -> Stopped | None:
        """Returns the Stopped that has ended an attempt, if there is one."""
        return next((outcome for outcome in self.outcomes.values() if isinstance(outcome, Stopped)), None)
