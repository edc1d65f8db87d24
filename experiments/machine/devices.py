"""Which devices a run computes on."""

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UsageError, first_line

Device = Any  # a jax.Device; importing jax takes half a second, which a wrong command line need not wait for

_FORCED, _NUMBER = "--xla_force_host_platform_device_count", "JAX_NUM_CPU_DEVICES"
_SMALLEST_KEPT = 0.1  # seconds of compilation; JAX's default of 1 would leave out four programs of a start


def cores() -> int:
    """Returns the number of cores that this process may use. macOS does not tell; there it is all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start() -> None:
    """Starts JAX as `configure` says. Call it before creating an array.

    Raises:
      UsageError: A variable of the environment asks for what is not there.
    """
    configure()
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        reason = first_line(error) if str(error) else "it is not installed, or has no device"
        raise UsageError(f"JAX cannot start{f' with JAX_PLATFORMS={asked}' if asked else ''}: {reason}") from None


def configure() -> None:
    """Imports and configures JAX: one virtual CPU device for each core, and compiled programs kept on disk. Uses no device.

    A number of CPU devices in XLA_FLAGS or JAX_NUM_CPU_DEVICES is honoured, and so is JAX_COMPILATION_CACHE_DIR.

    Raises:
      UsageError: A variable of the environment asks for what is not there.
    """
    forced = re.search(rf"{_FORCED}=(\S*)", os.environ.get("XLA_FLAGS", ""))
    for name, value in (("XLA_FLAGS", forced and forced[1]), (_NUMBER, os.environ.get(_NUMBER))):
        if value is not None and not re.fullmatch("[1-9][0-9]{0,3}", value):
            raise UsageError(f"{name}: {value!r} CPU devices must be an integer from 1 to 9999")
    try:
        import jax
    except (ValueError, TypeError) as error:  # JAX reads its variables when it is imported
        raise UsageError(f"a JAX_ variable of the environment is wrong: {first_line(error)}") from None
    if forced is None and _NUMBER not in os.environ:
        jax.config.update("jax_num_cpu_devices", cores())
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SMALLEST_KEPT)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "attn" / "compiled"))


def chosen(count: int | None) -> tuple[Device, ...]:
    """Returns the devices of a run.

    Args:
      count: How many, over all processes; None is all.

    Raises:
      UsageError: There are not so many, or the processes cannot have the same share of them.
    """
    import jax

    found = jax.devices()
    if count is None:
        return tuple(found)
    if count > len(found):
        raise UsageError(f"config.devices={count} must be at most the {described(found)} that there are")
    processes = jax.process_count()
    if count % processes:
        raise UsageError(f"config.devices={count} must be a multiple of the {processes} processes")
    share = count // processes
    return tuple(device for index in range(processes) for device in [d for d in found if d.process_index == index][:share])


def described(devices: Sequence[Device]) -> str:
    """Returns for example "2 CPU devices (x86_64)"."""
    name = devices[0].platform.upper()
    return f"{len(devices)} {name} device{'s' if len(devices) > 1 else ''} ({kind(devices[0])})"


def kind(device: Device) -> str:
    """Returns the model of a device; for a CPU, of which JAX says nothing, its architecture."""
    return platform.processor() or platform.machine() if device.platform == "cpu" else device.device_kind
