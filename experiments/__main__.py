"""The command line: python -m experiments {prepare,train,evaluate,predict,attend,reproduce,quickstart,sweep,report}."""

import io
import os
import signal
import sys
from types import FrameType

if sys.getfilesystemencoding() != "utf-8":  # Orbax writes no other paths: start again, before anything is done
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-X", "utf8=1", *sys.orig_argv[1:]])  # the first -X utf8 is the one that counts

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal without "━" must not end a run

try:
    from experiments.command_line.commands import TRAINING, main
    from experiments.machine.stopping import INTERRUPTED, PREEMPTED
except ModuleNotFoundError as error:
    top = str(error.name).partition(".")[0]
    if top in ("experiments", "attn"):
        sys.exit("error: python -m experiments runs in a checkout of the repository only: change to its folder first")
    sys.exit(f"error: {top} is not installed: run `make quickstart`, or `pip install -e '.[experiments]'`, and use that Python")


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Ctrl-C. While a module is imported it ends the process: an extension would turn KeyboardInterrupt into ImportError."""
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            os.write(2, b"interrupted\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _preempt(*_: object) -> None:
    """SIGTERM or SIGUSR1 before a training has started, or between two: there is nothing to save."""
    os.write(2, b"stopped: the same command continues\n")
    os._exit(PREEMPTED)


signal.signal(signal.SIGINT, _interrupt)
if sys.argv[1:] and sys.argv[1] in TRAINING:
    signal.signal(signal.SIGTERM, _preempt)
    signal.signal(signal.SIGUSR1, _preempt)
code = main(sys.argv[1:])
if code:
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: threads of an unfinished compilation have crashed an orderly exit, in which JAX also waits for all processes.
    os._exit(code)
sys.exit(code)
