"""How the devices of this machine are divided among the processes that run at the same time."""

import importlib.util
import os
import subprocess
import sys
from typing import NamedTuple

from experiments.errors import Refusal, UsageError
from experiments.machine import devices

_PROBE = """
import jax
found = jax.local_devices()
print(found[0].platform, len({getattr(device, "coords", device.id) for device in found}))
"""  # the two cores of a TPU chip have the same coordinates
_CHIPS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}  # the shapes into which a TPU host's chips can be divided
_GPU_MEMORY = 0.9  # of a GPU, over all processes that share it
_MOST = 1024


class Slot(NamedTuple):
    """What one process has.

    Attributes:
      environment: Variables for JAX.
      cores: The cores of the process; None: all.
    """

    environment: dict[str, str]
    cores: tuple[int, ...] | None


def of_machine(jobs: int | None) -> tuple[list[Slot], str]:
    """Returns the slots of this machine, and what they are in words.

    Args:
      jobs: How many. None: one for each accelerator, or a single one with all cores.

    Raises:
      UsageError: The devices cannot be divided so.
      Refusal: JAX does not start.
    """
    if jobs is not None and not 1 <= jobs <= _MOST:
        raise UsageError(f"--jobs={jobs} must be an integer from 1 to {_MOST}")
    platform, count = _accelerators()
    if platform == "cpu":
        return _of_cores(jobs or 1)
    jobs = jobs or count
    share, sharers = max(1, count // jobs), -(-jobs // count)
    chips = [tuple(range(index * share % count, index * share % count + share)) for index in range(jobs)]
    slots = [Slot(_visible(platform, chosen, count, sharers), None) for chosen in chips]
    each = f"{share} {platform.upper()} device{'s' * (share > 1)} each" if sharers == 1 else f"{sharers} on a device"
    return slots, f"{jobs} process{'es' * (jobs > 1)}, {each}"


def _accelerators() -> tuple[str, int]:
    """Returns the platform and the number of its devices. Another process looks, because looking takes the devices."""
    plugins = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    if not plugins or os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    if done.returncode:
        raise Refusal(f"JAX does not start: {([line for line in done.stderr.splitlines() if line] or ['no reason given'])[-1]}")
    platform, count = done.stdout.split()[-2:]
    return platform, int(count)


def _of_cores(jobs: int) -> tuple[list[Slot], str]:
    """Divides the cores. Each process has one virtual device for each of its cores, as `train` has; see `devices`."""
    if not hasattr(os, "sched_setaffinity") or jobs == 1:
        return [Slot({}, None)] * jobs, f"{jobs} process{'es' * (jobs > 1)} with all {devices.cores()} cores"
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // jobs)
    parts = [tuple(cores[(index * share + k) % len(cores)] for k in range(share)) for index in range(jobs)]
    return [Slot({}, part) for part in parts], f"{jobs} processes, {share} core{'s' * (share > 1)} each"


def _visible(platform: str, chosen: tuple[int, ...], count: int, sharers: int) -> dict[str, str]:
    """Returns the variables with which JAX sees the chosen devices alone."""
    if platform == "tpu":
        if sharers > 1:
            raise UsageError(f"--jobs must be at most {count}, the TPU chips of this machine: two processes cannot share one")
        if len(chosen) not in _CHIPS:
            raise UsageError(f"--jobs: {count} TPU chips cannot be divided into parts of {len(chosen)}")
        bounds = {"TPU_CHIPS_PER_PROCESS_BOUNDS": _CHIPS[len(chosen)], "TPU_PROCESS_BOUNDS": "1,1,1"}
        return {**bounds, "TPU_VISIBLE_CHIPS": ",".join(map(str, chosen)), "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    known = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name] or list(map(str, range(count)))
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(known[index] for index in chosen)}
    if sharers > 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        visible["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_GPU_MEMORY / sharers:.3f}"
    return visible
