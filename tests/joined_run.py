"""One of two processes that train a tiny run together; started by test_processes.py.

The run is stopped by a SIGTERM to the second process alone, goes on, and is then asked to train another config. Exit codes are
written to WORKDIR.INDEX.json. Then the second process ends, as if killed, and what the first one raises is written to
WORKDIR.lost.txt.
"""

import json
import os
import signal
import sys
from pathlib import Path

import tiny

from experiments import build, commands, fit, processes


def main(port: str, index: int, workdir: Path) -> None:
    build.build_corpus = lambda config: tiny.corpus()
    command = ["train", *tiny.FLAGS, f"--workdir={workdir}", "--config.steps_per_call=1", "--config.checkpoint_every=3"]
    call, calls = fit.Fit._call, []

    def preempted(*arguments):
        calls.append(None)
        if (index, len(calls)) == (1, 4):
            signal.raise_signal(signal.SIGTERM)
        return call(*arguments)

    fit.Fit._call = preempted
    joined = [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={index}"]
    with tiny.fast_compilation():
        codes = [commands.main([*command, *joined])]
        fit.Fit._call, processes.join = call, lambda *_: None  # they have joined already
        codes += [commands.main([*command, *joined, *flags]) for flags in ([], [], ["--config.seed=1"])]
    workdir.with_suffix(f".{index}.json").write_text(json.dumps(codes))
    if index == 0:
        try:
            processes.agree(1.0)
        except processes.Lost as lost:
            workdir.with_suffix(".lost.txt").write_text(str(lost))
    os._exit(0)  # an orderly exit waits for the other process


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
