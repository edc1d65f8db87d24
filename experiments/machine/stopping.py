"""SIGTERM, SIGINT and SIGUSR1: the first one ends a run in order, a second one at once.

A Python handler runs in the main thread only, and only between two of its instructions. So whatever takes long outside of
Python (compiling, a compiled call) runs in another thread, and the main thread waits for it.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, TypeVar

from experiments.errors import Refusal

Result = TypeVar("Result")
PREEMPTED, INTERRUPTED = 75, 130
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(Refusal):
    """A signal has stopped the run."""

    def __init__(self, received: signal.Signals, then: str = ": the same command goes on"):
        super().__init__(f"stopped by {received.name}{then}")
        self.received, self.exit_code = received, exit_code(received)

    def saved(self, step: int) -> "Stopped":
        """Returns the same for a run that is saved after so many steps."""
        if step == 0:
            return Stopped(self.received, " before the first step: the same command starts again")
        return Stopped(self.received, f" after step {step}, which is saved: the same command continues")


def exit_code(received: signal.Signals) -> int:
    """Returns the exit code of a run that a signal has stopped: 130 for Ctrl-C, 75 for the others."""
    return INTERRUPTED if received == signal.SIGINT else PREEMPTED


class Signals:
    """Receives the signals. A context manager, which puts the former handlers back.

    At first, a signal raises `Stopped` where the main thread is. After `defer`, it is only noted, for `stop_if`, except
    while `abandonable` waits.

    Attributes:
      received: The first signal, or None.
      first: The first signal that any object of this class has received in this process, or None.
    """

    first: ClassVar[signal.Signals | None] = None

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._raises, self._together = True, False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            self._former = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            os._exit(exit_code(self.received))
        self.received = Signals.first = signal.Signals(number)
        if self._raises:
            raise Stopped(self.received)

    def defer(self, together: bool) -> None:
        """From now on, a signal is noted.

        Args:
          together: Whether several processes train together, which must all stop at the same step: then nothing is abandoned.

        Raises:
          Stopped: There was a signal already.
        """
        self._raises, self._together = False, together
        if self.received is not None:
            raise Stopped(self.received)

    def stop_if(self, agreed: float) -> None:
        """Raises Stopped if this process, or another one that it has agreed with, has received a signal."""
        if agreed:
            raise Stopped(self.received or signal.SIGTERM)

    def finish(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Returns what a function returns, even if a signal comes. A second signal ends the process meanwhile."""
        return _in_thread(function, arguments)

    def abandonable(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Returns what a function returns, or raises Stopped as soon as a signal comes; then the function runs on, unheeded."""
        if self._together:
            return self.finish(function, *arguments)
        if self.received is not None:
            raise Stopped(self.received)
        self._raises, before = True, self._raises
        try:
            return _in_thread(function, arguments)
        finally:
            self._raises = before


def _in_thread(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend([function(*arguments), None])
        except BaseException as error:
            outcome.extend([None, error])

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    result, error = outcome
    if error is not None:
        raise error
    return result
