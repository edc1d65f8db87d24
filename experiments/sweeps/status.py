"""The table of a sweep: how far each trial is. Any process may print it at any time."""

from collections import Counter
from pathlib import Path

from experiments.report import tables
from experiments.sweeps import states, sweep_folder, trials
from experiments.sweeps.sweep_folder import Sweep

SHOWN = 200  # trials, at most
_SAID = {"out": "out (halving)"}


def table(sweep: Sweep, sweepdir: Path) -> str:
    """Returns the table, and a line with how many trials are in which state."""
    failed, halving = sweep_folder.read_failures(sweepdir), sweep_folder.read_halving(sweepdir)
    out = {trial.name for trial in sweep.trials if halving.epochs and trial.name not in halving.go_on}
    fields, lines, counts = trials.varied(sweep.trials), [], Counter()
    for trial in sweep.trials:
        state = states.of(sweepdir, trial, failed, out)
        counts[state.kind] += 1
        last = state.rows[-1] if state.rows else None
        accuracy = f"{last['val_accuracy']:.4f}" if last else ""
        values = [str(trial.fields[field]) for field in fields]
        seconds = f"{state.seconds:.1f}" if state.rows else ""
        epoch = f"{len(state.rows)}/{trial.epochs}"
        lines.append([trial.name, *values, _SAID.get(state.kind, state.kind), epoch, accuracy, seconds])
    shown = tables.markdown(["trial", *fields, "state", "epoch", "val_accuracy", "seconds"], lines[:SHOWN])
    more = f"\nand {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    told = ", ".join(f"{count} {_SAID.get(kind, kind)}" for kind, count in counts.items())
    others = sweep_folder.others(sweepdir, sweep.trials)
    are = "trials are" if others > 1 else "trial is"
    left = f"\n{others} other {are} in {sweepdir}, which the sweep no longer has" if others else ""
    return f"{shown}{more}\n\n{len(lines)} trial{'s' * (len(lines) > 1)}: {told}{left}"
