"""A Ray cluster: whether there is one at an address, and what of it a trial gets."""

import importlib.util
import logging
import os
import re
import socket
import subprocess
import sys
from typing import Any

from experiments.errors import UsageError

ANSWER_SECONDS = 10.0
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_PROBE = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False)"
_ACCELERATORS = ("GPU", "TPU")


def connect(address: str | None) -> Any:
    """Connects to a cluster, and returns Ray.

    Args:
      address: HOST:PORT, or "auto" for the cluster that this machine belongs to. None: the one that RAY_ADDRESS names, or else
        a cluster of this machine alone, which is started.

    Raises:
      UsageError: Ray is not installed, or the address does not answer.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--engine=ray: Ray is not installed: pip install -e '.[ray]'")
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address:
        _check(address)
    import ray

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # what Ray will do by default, and warns of now
    ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False)
    return ray


def _check(address: str) -> None:
    """Raises UsageError if no cluster answers. Ray itself would wait for minutes, and print pages."""
    if address != "auto":
        match = _ADDRESS.fullmatch(address)
        if not match or not 1 <= int(match[2]) <= 65_535:
            raise UsageError(f"--ray_address={address} must be HOST:PORT, such as 10.0.0.1:6379, or auto")
        try:
            socket.create_connection((match[1].strip("[]"), int(match[2])), ANSWER_SECONDS).close()
        except OSError as error:
            raise UsageError(f"--ray_address={address} does not answer: {error.strerror or error}") from None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        if b"InvalidAuthToken" in (error.stderr or b""):
            raise UsageError(f"--ray_address={address} asks for a token: set RAY_AUTH_MODE=token, as on its nodes") from None
        raise UsageError(f"--ray_address={address} does not answer as a Ray cluster within {ANSWER_SECONDS:.0f} s") from None
    if done.returncode:
        reason = ([line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"])[-1]
        raise UsageError(f"--ray_address={address} is no Ray cluster that can be used: {reason}")


def resources_of(text: str) -> dict[str, float]:
    """Returns what "GPU=1,CPU=4" asks for. Raises UsageError if it is no such text."""
    found = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([A-Za-z_][A-Za-z0-9_]*)=([0-9]{1,6}(?:\.[0-9]{1,4})?)\s*", part)
        if not match or not float(match[2]):
            raise UsageError(f"--resources={text} must be such as CPU=2 or GPU=1,CPU=4")
        found[match[1]] = float(match[2])
    return found


def usual_resources(ray: Any) -> dict[str, float]:
    """Returns an accelerator, or a core where the cluster has none."""
    there = ray.cluster_resources()
    return {next((name for name in _ACCELERATORS if there.get(name)), "CPU"): 1.0}


def slots(resources: dict[str, float], ray: Any) -> int:
    """Returns how many processes the nodes can run at the same time. Raises UsageError if it is none."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(int(min(node.get(name, 0.0) / amount for name, amount in resources.items())) for node in nodes)
    if not count:
        raise UsageError(f"--resources={described(resources)}: no node of the Ray cluster has so much")
    return count


def described(resources: dict[str, float]) -> str:
    """Returns for example "GPU=1,CPU=4"."""
    return ",".join(f"{name}={amount:g}" for name, amount in resources.items())


def environment(resources: dict[str, float]) -> dict[str, str]:
    """Returns the variables with which JAX uses what a process gets; Ray itself makes other accelerators invisible."""
    gpu = resources.get("GPU", 0.0)
    if 0 < gpu < 1:
        return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 * gpu:.3f}"}
    asked = "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if asked or any(name in resources for name in _ACCELERATORS):
        return {}
    return {"JAX_NUM_CPU_DEVICES": str(max(1, int(resources.get("CPU", 1))))}


def options(resources: dict[str, float]) -> dict[str, Any]:
    """Returns the resources as options of a Ray task."""
    custom = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": resources.get("CPU", 1), "num_gpus": resources.get("GPU", 0), "resources": custom}
