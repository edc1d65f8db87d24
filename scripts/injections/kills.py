"""Kills short runs at random moments and starts them again until they end; each must be the run that was never killed.

    python -m scripts.injections.kills --kills 20 --signal SIGKILL --folder /tmp/kills

Prints a line for each run, and a last line of JSON with the counts. Exits with 1 if a run differs or fails.
"""

import argparse
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from scripts.injections import short_runs

_CODES = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGINT: {130}}  # of a process that a signal has ended; others: 75


class Count(NamedTuple):
    """What came of it.

    Attributes:
      signals: The signals that were sent to a process.
      runs: The runs.
      identical: Those that are the run that was never stopped.
      longest: The longest time from a signal to the end of the process, in seconds.
      unexpected: The exit codes of stopped processes that are not those of their signal.
    """

    signals: int
    runs: int
    identical: int
    longest: float
    unexpected: list[int]

    @property
    def passed(self) -> bool:
        return self.runs == self.identical > 0 and not self.unexpected


def stop_runs(folder: Path, signals: int, number: signal.Signals, seed: int = 0) -> Count:
    """Stops runs at random moments of their time, until so many signals have been sent and the last run has ended."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    short_runs.prepare(folder / "compiled")
    for name in ("cold", "undisturbed"):
        started = time.monotonic()
        if code := short_runs.ended(short_runs.start(folder / name)):
            raise RuntimeError(f"the undisturbed run ended with {code}: see {folder / name}.log")
        seconds = time.monotonic() - started
    expected = short_runs.outcome(folder / "undisturbed")
    sent = runs = identical = 0
    longest, unexpected = 0.0, []
    while sent < signals:
        runs, workdir, code = runs + 1, folder / f"run{runs + 1}", None
        while code != 0:
            process = short_runs.start(workdir)
            code = short_runs.kill_after(process, draw.uniform(0.2, 1.1) * seconds, number)
            if code is None:
                started, sent = time.monotonic(), sent + 1
                code = short_runs.ended(process)
                longest = max(longest, time.monotonic() - started)
                if code not in _CODES.get(number, {75}) | {0}:  # 0: it had just finished
                    unexpected.append(code)
            elif code:
                raise RuntimeError(f"{workdir} ended with {code} by itself: see {workdir}.log")
        found = short_runs.outcome(workdir)
        identical += found == expected
        print(f"{workdir.name}: {'identical' if found == expected else found}; {sent} of {signals} signals", flush=True)
    return Count(sent, runs, identical, round(longest, 2), unexpected)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Kills short runs at random moments; each must be the run that was never killed."
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=["SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1"], default="SIGKILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    count = stop_runs(arguments.folder, arguments.kills, signal.Signals[arguments.signal], arguments.seed)
    print(json.dumps(count._asdict()))
    sys.exit(not count.passed)


if __name__ == "__main__":
    main()
