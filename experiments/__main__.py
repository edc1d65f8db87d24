"""The command line: python -m experiments {prepare,train,evaluate,predict,reproduce,quickstart}."""

import io
import os
import signal
import sys

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal that knows no "━" must not end a run

signal.signal(signal.SIGINT, signal.SIG_DFL)  # the imports take seconds, and an extension turns Ctrl-C into ImportError
from experiments.commands import INTERRUPTED, main, use_all_cores  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)
use_all_cores()
code = main(sys.argv[1:])
if code == INTERRUPTED:
    os._exit(code)  # at once: the threads of a compilation under way have crashed an orderly exit
sys.exit(code)
