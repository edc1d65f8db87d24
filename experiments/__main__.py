"""The command line: python -m experiments {prepare,train,evaluate,predict,reproduce,quickstart}."""

import io
import sys

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal that knows no "━" must not end a run

try:
    from experiments.commands import main  # takes a second, in which Ctrl-C is no traceback either

    code = main(sys.argv[1:])
except KeyboardInterrupt:
    code = 130
sys.exit(code)
