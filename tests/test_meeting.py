"""Processes that are missing, or whose numbers do not fit, are told so in one line, all of them; here they are threads."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from experiments.errors import UsageError
from experiments.machine import meeting

SECONDS = 20.0  # enough for every meeting that comes about


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def meet(
    *processes: tuple[int, int], seconds: float = SECONDS, before: Callable[[int], object] = lambda port: None
) -> list[str]:
    """What each of the processes (place, number) is told, without the coordinator that every message begins with."""
    port = free_port()
    coordinator = f"localhost:{port}"
    with ThreadPoolExecutor() as pool:
        told: list[Future] = []
        for place, number in processes:
            told.append(pool.submit(meeting.meet, coordinator, number, place, seconds))
        before(port)
    errors = [future.exception() for future in told]
    assert all(error is None or isinstance(error, UsageError) for error in errors), errors
    begin = f"--coordinator={coordinator}: "
    assert all(error is None or str(error).startswith(begin) for error in errors)
    return ["" if error is None else str(error).removeprefix(begin) for error in errors]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_processes_that_fit_meet_in_any_order(order: tuple[int, ...]):
    assert meet(*((place, 3) for place in order)) == [""] * 3


def test_one_process_is_complete():
    assert meet((0, 1)) == [""]


@pytest.mark.parametrize(
    "processes, told",
    [
        ([(0, 3), (1, 3), (1, 3)], "two processes have --process_id=1"),
        ([(0, 3), (1, 2)], "process 0 has --num_processes=3, and process 1 has 2"),
        ([(0, 2), (2, 3)], "process 0 has --num_processes=2, and process 2 has 3"),
    ],
)
def test_processes_that_do_not_fit_are_all_told(processes: list[tuple[int, int]], told: str):
    assert meet(*processes) == [told] * len(processes)


@pytest.mark.parametrize(
    "processes, told",
    [([(0, 2)], "process 1 is not there after 0.5 s"), ([(0, 4), (2, 4)], "2 of 4 processes are not there after 0.5 s")],
)
def test_missing_processes_are_named_or_counted(processes: list[tuple[int, int]], told: str):
    assert meet(*processes, seconds=0.5) == [told] * len(processes)


def test_a_process_0_that_is_missing_is_told():
    [told] = meet((1, 2), seconds=0.3)
    assert told.startswith("process 0 does not answer after 0.3 s: ")


def test_a_port_that_is_in_use_is_told():
    with socket.create_server(("", 0)) as other:
        coordinator = f"localhost:{other.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"^--coordinator={coordinator}: process 0 cannot wait there for the others: "):
            meeting.meet(coordinator, 2, 0, SECONDS)


def test_an_answer_of_something_else_is_told():
    def hang_up() -> None:
        peer = server.accept()[0]
        peer.recv(100)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.close()

    with socket.create_server(("", 0)) as server, ThreadPoolExecutor() as pool:
        pool.submit(hang_up)
        with pytest.raises(UsageError, match="what answers there is no process 0 that waits for others"):
            meeting.meet(f"localhost:{server.getsockname()[1]}", 2, 1, SECONDS)


def visit(port: int, sent: bytes, seconds: float = 0.0) -> None:
    """Somebody who connects, sends this, and goes after so many seconds."""
    with meeting._connected("localhost", port, SECONDS) as stranger:
        stranger.sendall(sent)
        time.sleep(seconds)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\x00\n", b"x" * 5000, b"attn run 1 of 2"])
def test_strangers_do_not_count(sent: bytes):
    assert meet((0, 2), seconds=0.5, before=lambda port: visit(port, sent)) == ["process 1 is not there after 0.5 s"]


@pytest.mark.parametrize("again", [True, False])
def test_a_process_that_has_gone_is_missing_until_it_comes_again(again: bool):
    """It was started with a mistake and stopped, while process 0 waited."""
    coordinator, seconds = f"localhost:{free_port()}", SECONDS if again else 2
    with ThreadPoolExecutor() as pool:
        told = [pool.submit(meeting.meet, coordinator, 3, 0, seconds)]
        visit(int(coordinator.rpartition(":")[2]), b"attn run 1 of 3\n", seconds=0.3)
        told += [pool.submit(meeting.meet, coordinator, 3, place, SECONDS) for place in ((1, 2) if again else (2,))]
        errors = [future.exception() for future in told]
    expected = None if again else f"--coordinator={coordinator}: process 1 is not there after 2 s"
    assert [error and str(error) for error in errors] == [expected] * len(told)


def test_the_port_is_free_again():
    """JAX listens there next."""
    port = free_port()
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(meeting.meet, f"localhost:{port}", 2, place, SECONDS) for place in range(2)]
        assert [future.result() for future in both] == [None, None]
    socket.create_server(("", port)).close()
