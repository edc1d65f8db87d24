"""Runs that are stopped at random moments and started again until they end."""

import random
import signal
import time
from pathlib import Path

from experiments.storage import checkpoints
from scripts.injections import short_runs
from scripts.injections.row import Row

_CODES = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGINT: {130}}  # of a process that a signal has ended; others: 75


def stop_runs(name: str, count: int, seed: int, folder: Path) -> Row:
    """Sends so many signals to short runs, at random moments of their time. Each run must end as one that was never stopped.

    Args:
      name: The signal, such as "SIGKILL".
      count: How many are sent; then the last run goes on to its end.
      seed: Of the moments.
      folder: Where the runs are.
    """
    number, draw = signal.Signals[name], random.Random(seed)
    short_runs.prepare(folder / "compiled")
    seconds, expected = short_runs.reference(folder)
    sent = runs = identical = 0
    longest, unexpected = 0.0, []
    while sent < count:
        runs, workdir, code = runs + 1, folder / f"seed{seed}-run{runs + 1}", None
        reached, longest_wait = [], seconds
        while code != 0:
            process = short_runs.start(workdir)
            if sent >= count:
                code = short_runs.ended(process)
                break
            code = short_runs.signal_after(process, draw.uniform(0.2, 1.1) * longest_wait, number)
            before, reached = reached, checkpoints.steps_of(workdir, "last")
            if reached == before:  # on a machine that has become slower, no run would get anywhere
                longest_wait *= 1.3
            if code is None:
                started, sent = time.monotonic(), sent + 1
                code = short_runs.ended(process)
                longest = max(longest, time.monotonic() - started)
                if code not in _CODES.get(number, {75}) | {0}:  # 0: it had just finished
                    unexpected.append(code)
            elif code:
                raise RuntimeError(f"{workdir} ended with {code} by itself: see {workdir}.log")
        identical += short_runs.outcome(workdir) == expected
    note = f"{runs} runs, {identical} identical; the longest time to the end of a process {longest:.2f} s"
    if unexpected:
        note += f"; unexpected exit codes {unexpected}"
    code = "" if number == signal.SIGKILL else f"exit code {_CODES.get(number, {75})}, "
    required = f"{code}the same bits as the run that was never stopped".replace("{", "").replace("}", "")
    return Row(f"{name} at a random moment", required, sent, sent if identical == runs and not unexpected else identical, note)


def double_starts(count: int, folder: Path) -> Row:
    """Starts two processes at once on one folder: one trains, the other is told with exit code 5."""
    short_runs.prepare(folder / "compiled")
    flags = ("--config.epochs=1",)
    _, expected = short_runs.reference(folder, *flags)
    held, longest = 0, 0.0
    for index in range(count):
        workdir, started = folder / f"run{index}", time.monotonic()
        both = [short_runs.start(workdir, *flags) for _ in range(2)]
        _, first = short_runs.next_ended(both)
        longest = max(longest, time.monotonic() - started)
        _, second = short_runs.next_ended(both)
        held += (first, second) == (5, 0) and short_runs.outcome(workdir) == expected
    note = f"the longest time until the second was told {longest:.2f} s after the imports"
    return Row("two processes at once", "one trains, the other ends with exit code 5", count, held, note)
