"""The command line: python -m experiments {prepare,train,evaluate,predict,reproduce,quickstart}."""

import io
import os
import signal
import sys

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal without "━" must not end a run

# The imports take seconds, and an extension module turns Ctrl-C into an ImportError.
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    from experiments.commands import INTERRUPTED, main
except ModuleNotFoundError as error:
    top = str(error.name).partition(".")[0]
    if top in ("experiments", "attn"):
        sys.exit("error: python -m experiments runs in a checkout of the repository only: change to its folder first")
    sys.exit(f"error: {top} is not installed: run `make quickstart`, or `pip install -e '.[experiments]'`, and use that Python")

signal.signal(signal.SIGINT, signal.default_int_handler)
code = main(sys.argv[1:])
if code == INTERRUPTED:
    os._exit(code)  # at once: threads of an unfinished compilation have crashed an orderly exit
sys.exit(code)
