"""Several processes that train one run together. One of them, the writer, writes the run folder; all can read it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from experiments.errors import Refusal, UsageError, first_line
from experiments.machine import meeting

Result = TypeVar("Result")
_SECONDS = 60  # in which all processes must have started
_TEXT = 4096  # bytes of a message to the other processes


class Told(Refusal):
    """Process 0 has refused to go on."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.exit_code = code


class Lost(Refusal):
    """The processes cannot compute together any more, most probably because one of them has ended.

    If it was process 0, JAX also prints lines of its own, and may abort the others before they tell anything.
    """

    def __init__(self, error: Exception):
        reason = first_line(error)
        super().__init__(f"another process of the run has gone: start all of them again, and they go on ({reason})")


@contextlib.contextmanager
def _together() -> Iterator[None]:
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise Lost(error) from None


def join(coordinator: str | None = None, number: int | None = None, place: int | None = None) -> None:
    """Joins the other processes. Call it before the first device is used.

    Args:
      coordinator: HOST:PORT of process 0; None, with the other two, is what the environment of the cluster says (Slurm, Open
        MPI, Kubernetes, TPU pods; see `jax.distributed.initialize`).
      number: How many processes there are.
      place: Which of them this one is, from 0.

    Raises:
      UsageError: The processes do not find each other, or the environment says nothing.
    """
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # the signals are ours
    try:
        if coordinator is not None and number is not None and place is not None:
            meeting.meet(coordinator, number, place, _SECONDS)
        jax.distributed.initialize(coordinator, number, place, initialization_timeout=_SECONDS)
    except (ValueError, RuntimeError) as error:
        where = f"--coordinator={coordinator}" if coordinator else "--distributed"
        raise UsageError(f"{where}: the processes do not find each other: {first_line(error)}") from None


def count() -> int:
    """Returns how many processes train together."""
    import jax

    return jax.process_count()


def index() -> int:
    """Returns which of the processes this one is, from 0."""
    import jax

    return jax.process_index()


def is_writer() -> bool:
    """Returns whether this process writes the run folder."""
    return index() == 0


def agree(*values: float) -> list[float]:
    """Returns the maximum of each value over all processes. Every process must call it.

    Raises:
      Lost: Another process has ended.
    """
    if count() == 1:
        return list(values)
    from jax.experimental import multihost_utils

    with _together():
        return np.max(multihost_utils.process_allgather(np.array(values, np.float32)), axis=0).tolist()


def from_writer(value: Sequence[int]) -> list[int]:
    """Returns the integers of the writer in every process. Every process must call it, with as many.

    Raises:
      Lost: Another process has ended.
    """
    if count() == 1:
        return list(value)
    from jax.experimental import multihost_utils

    with _together():
        return np.asarray(multihost_utils.broadcast_one_to_all(np.array(value, np.int32))).tolist()


def gathered(array: Any) -> np.ndarray:
    """Returns an array of all devices as a NumPy array, in every process. Every process must call it.

    Raises:
      Lost: Another process has ended.
    """
    if count() == 1:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    with _together():
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def by_writer(function: Callable[[], Result]) -> Result | None:
    """Calls a function in the writer. Every process must call this.

    Returns:
      What the function returns in the writer, and None in the others.

    Raises:
      Refusal: What the function raises in the writer; in the others `Told`, with the same message and exit code.
    """
    if count() == 1:
        return function()
    result, refusal = None, None
    if is_writer():
        try:
            result = function()
        except Refusal as error:
            refusal = error
    text = str(refusal or "").encode()[:_TEXT]
    code, length, *message = from_writer([refusal.exit_code if refusal else 0, len(text), *text.ljust(_TEXT)])
    if refusal:
        raise refusal
    if code:
        raise Told(bytes(message[:length]).decode(errors="replace"), code)
    return result


def described() -> dict[str, int]:
    """Returns which process this is, for the record of an attempt."""
    return {"index": index(), "of": count()}
