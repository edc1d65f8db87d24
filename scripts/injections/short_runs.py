"""Short runs in forked processes: the imports are done once, and every process starts JAX for itself."""

import contextlib
import hashlib
import json
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint
import tiny

from experiments.command_line import commands
from experiments.report import curves
from experiments.storage import checkpoints, metrics, run_folder
from experiments.training import build
from experiments.training import train as _train

PRELOADED = (orbax.checkpoint, metrics.summary_writer(), curves, _train)  # so that a forked process need not import them
FLAGS = (*tiny.FLAGS, "--config.steps_per_call=1", "--config.checkpoint_every=1")
_WARM = 0.4  # the time of a run with warm caches over that of the first one


def prepare(cache: Path) -> None:
    """Sets up this process, which must not compute: a forked process cannot use the threads that JAX would start."""
    warnings.filterwarnings("ignore", "os.fork")  # there are no such threads yet
    cache.parent.mkdir(parents=True, exist_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)
    small = tiny.corpus()
    build.build_corpus = lambda config: small


def fork(function: Callable[[], int], log: Path) -> int:
    """Runs a function in a forked process, whose exit code it returns and whose output goes to a file. Returns its id."""
    process = os.fork()
    if process:
        return process
    with contextlib.suppress(BaseException):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        try:
            code = function()
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os._exit(98)


def start(workdir: Path, *flags: str) -> int:
    """Starts a training in a forked process; its output goes to `WORKDIR.log`. Returns the id of the process."""
    return fork(lambda: train(workdir, *flags), Path(f"{workdir}.log"))


def train(workdir: Path, *flags: str) -> int:
    """Trains in this process. Returns the exit code."""
    return commands.main(["train", *FLAGS, f"--workdir={workdir}", *flags])


def ended(process: int) -> int:
    """Waits for a process. Returns its exit code, or minus the number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def undisturbed(workdir: Path, *flags: str) -> float:
    """Trains a run to its end. Returns the seconds that it took."""
    started = time.monotonic()
    if code := ended(start(workdir, *flags)):
        raise RuntimeError(f"the undisturbed run ended with {code}: see {workdir}.log")
    return time.monotonic() - started


def reference(folder: Path, *flags: str) -> tuple[float, str]:
    """Returns about how long an undisturbed run takes with warm caches, and its outcome. It is made once in a folder."""
    known = folder / "reference.json"
    if not known.exists():
        seconds = _WARM * undisturbed(folder / "undisturbed", *flags)
        known.write_text(json.dumps([seconds, outcome(folder / "undisturbed")]))
    seconds, expected = json.loads(known.read_text())
    return seconds, expected


def next_ended(among: list[int]) -> tuple[int, int]:
    """Waits for one of these processes, and takes it out of the list. Returns its id and its exit code."""
    process, status = os.wait()
    among.remove(process)
    return process, os.waitstatus_to_exitcode(status)


def signal_after(process: int, seconds: float, number: signal.Signals) -> int | None:
    """Sends a signal to a process, unless it ends before. Returns its exit code in that case, and None otherwise."""
    child = os.pidfd_open(process)
    try:
        if select.select([child], [], [], seconds)[0]:
            return ended(process)
        signal.pidfd_send_signal(child, number)
        return None
    finally:
        os.close(child)


def outcome(workdir: Path) -> str:
    """Returns a hash of all that a finished run leaves and that is not a time; computed in a forked process."""
    answer = Path(f"{workdir}.outcome")
    code = ended(fork(lambda: write_outcome(workdir, answer), Path(f"{workdir}.log")))
    return answer.read_text() if code == 0 else f"exit code {code}, see {workdir}.log"


def write_outcome(workdir: Path, answer: Path) -> int:
    """Writes the hash of `outcome` to a file. Returns 0."""
    rows = [{k: v for k, v in row.items() if k not in tiny.TIMES} for row in run_folder.read_rows(workdir)]
    result = {k: v for k, v in run_folder.read_result(workdir).items() if k not in tiny.TIMES}
    digest = hashlib.sha256(json.dumps([rows, result]).encode())
    for kind in checkpoints.KINDS:
        found = checkpoints.read_newest(workdir, kind)
        for path, leaf in jax.tree_util.tree_leaves_with_path(found.arrays):
            digest.update(f"{kind}{found.step}{path}{np.asarray(leaf).dtype}".encode() + np.asarray(leaf).tobytes())
    answer.write_text(digest.hexdigest())
    return 0
