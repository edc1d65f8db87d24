"""Runs on a small file system that fills up."""

import subprocess
from pathlib import Path

from scripts.injections import short_runs
from scripts.injections.row import Row

_KILOBYTES = range(60, 1260, 60)
_REQUIRED = "one line, nothing lost; with room again, the same bits"


def full_disks(folder: Path) -> Row:
    """Trains on file systems of several sizes, gives each room later, and trains on. Mounting them needs root."""
    short_runs.prepare(folder / "compiled")
    _, expected = short_runs.reference(folder)
    held, codes = 0, []
    for size in _KILOBYTES:
        disk = folder / f"disk{size}"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(disk)], capture_output=True, text=True
        )
        if mounted.returncode:
            return Row("a full disk", _REQUIRED, 0, 0, f"not tried: {mounted.stderr.strip()}")
        try:
            codes.append(short_runs.ended(_start(disk)))
            lines = Path(f"{disk}.log").read_text().splitlines()
            subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
            again = short_runs.ended(_start(disk))
            told = codes[-1] == 0 or (codes[-1] in (1, 2) and lines[-1].startswith("error: "))
            found = Path(f"{disk}.outcome")
            process = short_runs.fork(lambda at=disk / "run", to=found: short_runs.write_outcome(at, to), Path(f"{disk}.log"))
            same = short_runs.ended(process) == 0 and found.read_text() == expected
            held += told and again == 0 and same and not any("Traceback" in line for line in lines)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    note = f"file systems of {_KILOBYTES[0]} to {_KILOBYTES[-1]} kB; {codes.count(0)} of {len(codes)} runs ended at once"
    return Row("a full disk", _REQUIRED, len(codes), held, note)


def _start(disk: Path) -> int:
    """Starts a training on the disk, with its output beside it."""
    return short_runs.fork(lambda: short_runs.train(disk / "run"), Path(f"{disk}.log"))
