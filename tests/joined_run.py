"""One of two processes that train a tiny run together, started by test_processes.py; in one of two phases.

"stop": a SIGTERM comes to the second process alone. "go_on": the run is finished, goes on with one more epoch, is asked for
again, and then with another config; and two seeds are trained by one program. Exit codes are written to WORKDIR.INDEX.json. At
the end of "go_on" the second process ends, as if killed, and what the first one raises is written to WORKDIR.lost.txt.
"""

import json
import os
import signal
import sys
from pathlib import Path

import tiny

from experiments.command_line import commands
from experiments.machine import processes
from experiments.training import build
from experiments.training.programs import Programs


def main(phase: str, port: str, index: int, workdir: Path) -> None:
    build.build_corpus = lambda config: tiny.corpus()
    joined = [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={index}"]
    command = ["train", *tiny.FLAGS, f"--workdir={workdir}", *joined]
    with tiny.fast_compilation():
        codes = [stop([*command, "--config.steps_per_call=1"], index)] if phase == "stop" else go_on(command, workdir)
    workdir.with_suffix(f".{index}.json").write_text(json.dumps(codes))
    if phase == "go_on" and index == 0:
        try:
            processes.agree(1.0)
        except processes.Lost as lost:
            workdir.with_suffix(".lost.txt").write_text(str(lost))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # an orderly exit waits for the other process


def stop(command: list[str], index: int) -> int:
    call, calls = Programs._trained, []

    def preempted(*arguments):
        calls.append(None)
        if (index, len(calls)) == (1, 4):
            signal.raise_signal(signal.SIGTERM)
        return call(*arguments)

    Programs._trained = preempted
    return commands.main(command)


def go_on(command: list[str], workdir: Path) -> list[int]:
    first = commands.main([*command, "--config.epochs=1"])
    processes.join = lambda *_: None  # they have joined already
    again = [commands.main(command), commands.main(command), commands.main([*command, "--config.seed=1"])]
    several = [*command, f"--workdir={workdir.with_suffix('.seeds')}", "--config.seeds=0,2", "--config.epochs=1"]
    return [first, *again, commands.main(several)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
