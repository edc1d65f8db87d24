"""The command line: python -m experiments {prepare,train,evaluate,predict,reproduce,quickstart}."""

import sys

from experiments.commands import main

sys.exit(main(sys.argv[1:]))
