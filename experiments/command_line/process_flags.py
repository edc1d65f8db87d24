"""The flags of several processes that train one run together."""

import re
from typing import Any, NamedTuple

from experiments.errors import UsageError

DEFAULTS = {"distributed": False, "coordinator": None, "num_processes": None, "process_id": None}
_MOST = 65_536
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")  # a name, or an address of IPv4, or of IPv6 in [ ]


class Place(NamedTuple):
    """Which of several processes this is. All None: the environment of the cluster says it.

    Attributes:
      coordinator: HOST:PORT of process 0.
      num_processes: How many processes there are.
      process_id: Which of them this one is, from 0.
    """

    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def read(values: Any) -> Place | None:
    """Returns which process this is, or None if there is only one.

    Args:
      values: The values of the flags of DEFAULTS.

    Raises:
      UsageError: A flag breaks its rule, or some are missing.
    """
    given = {name: values[name].value for name in Place._fields}
    missing = [f"--{name}" for name, text in given.items() if text is None]
    if len(missing) == len(given):
        return Place(None, None, None) if values.distributed else None
    if missing:
        raise UsageError(
            f"--coordinator, --num_processes and --process_id go together: {' and '.join(missing)} must be given too"
        )
    if values.distributed:
        raise UsageError("--distributed must be left out: it asks the cluster for what --coordinator and its two flags say")
    address = _ADDRESS.fullmatch(values.coordinator)
    if not address or not 1 <= int(address[2]) <= 65_535:
        raise UsageError(f"--coordinator={values.coordinator} must be HOST:PORT, such as 10.0.0.1:12355")
    number = _integer("num_processes", values.num_processes, 1, _MOST, "")
    last = number - 1
    return Place(values.coordinator, number, _integer("process_id", values.process_id, 0, last, f": --num_processes={number}"))


def _integer(name: str, text: str, low: int, high: int, why: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or not low <= int(text) <= high:
        raise UsageError(f"--{name}={text} must be an integer from {low} to {high}{why}")
    return int(text)
