"""Where the processes of a run meet before JAX joins them.

JAX aborts a process that nobody answers, or whose number another one has, and takes no notice if they count differently. Here
process 0 waits for all others and tells each of them, in a line, whether they fit. Uses the standard library only.
"""

import contextlib
import re
import socket
import time

from experiments.errors import UsageError

_HELLO, _WELCOME, _REFUSED = "attn run", "attn welcome", "attn refused: "
_RETRY = 0.2  # seconds between two attempts to reach process 0
_LONGEST = 1000  # bytes of a line
_SLOW = 5.0  # seconds, after which a connection that says nothing is closed


def meet(coordinator: str, number: int, place: int, seconds: float) -> None:
    """Waits until all processes are here.

    Args:
      coordinator: HOST:PORT of process 0, whose port is free again afterwards.
      number: How many processes there are.
      place: Which of them this one is, from 0.
      seconds: How long process 0 waits for the others, and they for it.

    Raises:
      UsageError: Somebody is missing, two have the same place, or not all have the same number.
    """
    host, _, port = coordinator.rpartition(":")
    try:
        if place == 0:
            _receive(int(port), number, seconds)
        else:
            _report(host.strip("[]"), int(port), number, place, seconds)
    except UsageError as error:
        raise UsageError(f"--coordinator={coordinator}: {error}") from None


def _receive(port: int, number: int, seconds: float) -> None:
    """Process 0: receives all others, and answers them."""
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as connections:
        here: dict[int, socket.socket] = {}
        answered: list[socket.socket] = []
        refusal = None
        with _listener(port) as listener:
            while not refusal and (missing := _missing(here, number)):
                listener.settimeout(max(deadline - time.monotonic(), 1e-3))
                try:
                    peer = connections.enter_context(listener.accept()[0])
                except TimeoutError:
                    refusal = _too_late(missing, number, seconds)
                    break
                if hello := re.fullmatch(rf"{_HELLO} (\d{{1,6}}) of (\d{{1,6}})", _line(peer)):  # others than ours are ignored
                    answered.append(peer)
                    refusal = _refusal(here, int(hello[1]), int(hello[2]), number)
                    here[int(hello[1])] = peer
        for peer in answered:
            with contextlib.suppress(OSError):  # it has gone
                peer.sendall(f"{_REFUSED}{refusal}\n".encode() if refusal else f"{_WELCOME}\n".encode())
        if refusal:
            raise UsageError(refusal)


def _listener(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)
    except OSError as error:
        raise UsageError(f"process 0 cannot wait there for the others: {error.strerror}") from None


def _missing(here: dict[int, socket.socket], number: int) -> list[int]:
    """Returns the places of the processes that are not here. Removes those that have gone, so that they may come again."""
    for place in [place for place, peer in here.items() if _gone(peer)]:
        del here[place]
    return [place for place in range(1, number) if place not in here]


def _gone(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return peer.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        peer.settimeout(_SLOW)


def _too_late(missing: list[int], number: int, seconds: float) -> str:
    one = f"process {missing[0]} is" if len(missing) == 1 else f"{len(missing)} of {number} processes are"
    return f"{one} not there after {seconds:g} s"


def _refusal(here: dict[int, socket.socket], place: int, theirs: int, number: int) -> str | None:
    """Returns why a process that reports to process 0 does not fit."""
    if theirs != number:
        return f"process 0 has --num_processes={number}, and process {place} has {theirs}"
    if place == 0 or (place in here and not _gone(here[place])):
        return f"two processes have --process_id={place}"
    return None


def _report(host: str, port: int, number: int, place: int, seconds: float) -> None:
    """Another process: reports to process 0, and waits for its answer."""
    with _connected(host, port, seconds) as connection:
        connection.settimeout(seconds + _SLOW)  # process 0 may have started later
        with contextlib.suppress(OSError):
            connection.sendall(f"{_HELLO} {place} of {number}\n".encode())
        answer = _line(connection)
    if answer.startswith(_REFUSED):
        raise UsageError(answer.removeprefix(_REFUSED))
    if answer != _WELCOME:
        raise UsageError("what answers there is no process 0 that waits for others: it has gone, or has begun without this one")


def _connected(host: str, port: int, seconds: float) -> socket.socket:
    """Returns a connection to process 0, which may start later, and whose name may be known later."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=seconds)
            if connection.getsockname() != connection.getpeername():  # a free port of this host may be connected with itself
                return connection
            connection.close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(f"process 0 does not answer after {seconds:g} s: {error.strerror or error}") from None
        time.sleep(_RETRY)


def _line(connection: socket.socket) -> str:
    """Returns the line that the other side sends, and "" if it sends none."""
    received = b""
    try:
        while not received.endswith(b"\n") and len(received) < _LONGEST:
            if not (more := connection.recv(_LONGEST)):
                return ""
            received += more
    except OSError:
        return ""
    return received.decode(errors="replace").removesuffix("\n")
