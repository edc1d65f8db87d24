"""Injects faults into the lab, and prints a table of what came of them.

    python scripts/faults.py --folder /tmp/faults                      # all of them, about half an hour on two CPU cores
    python scripts/faults.py --folder /tmp/faults --only SIGKILL --count 20

Each row is made by a process of its own. The exit code is 1 if something did not hold.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.report import tables
from scripts.injections.row import Row

COUNTS = {
    "SIGKILL": 200,
    "SIGTERM": 40,
    "SIGINT": 40,
    "SIGUSR1": 40,
    "double_starts": 100,
    "full_disks": 0,  # as many as there are
    "damaged_checkpoints": 1000,
    "crafted_arrays": 0,
    "bad_values": 0,
    "hostile_texts": 10_000,
    "hostile_archives": 0,
}


def injection(name: str, count: int, seed: int, folder: Path) -> Callable[[], Row]:
    """Returns the function that makes a row."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))  # the hostile inputs are those of the tests
    from scripts.injections import kills

    if name.startswith("SIG"):
        return lambda: kills.stop_runs(name, count, seed, folder)
    from scripts.injections import damage, full_disk, inputs  # which import a good deal more

    return {
        "double_starts": lambda: kills.double_starts(count, folder),
        "full_disks": lambda: full_disk.full_disks(folder),
        "damaged_checkpoints": lambda: damage.damaged_checkpoints(count, seed, folder),
        "crafted_arrays": lambda: damage.crafted_arrays(folder),
        "bad_values": lambda: inputs.bad_values(folder),
        "hostile_texts": lambda: inputs.hostile_texts(count, seed, folder),
        "hostile_archives": lambda: inputs.hostile_archives(folder),
    }[name]


def in_a_process(name: str, count: int, seed: int, folder: Path) -> Row:
    """Makes a row in a process of its own, in a new folder."""
    shutil.rmtree(folder / name, ignore_errors=True)
    flags = ["--folder", str(folder / name), "--only", name, "--count", str(count), "--seed", str(seed), "--child"]
    done = subprocess.run([sys.executable, __file__, *flags], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return Row(name, "", count, 0, f"the injection itself ended with {done.returncode}")
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Injects faults into the lab, and prints a table of what came of them.")
    parser.add_argument("--folder", type=Path, required=True, help="of the runs; what is in it is removed")
    parser.add_argument("--only", choices=COUNTS, help="one of the faults")
    parser.add_argument("--count", type=int, help="how often it is injected")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments, files and texts")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(COUNTS)
    counts = {name: COUNTS[name] if arguments.count is None else arguments.count for name in names}
    if arguments.child:
        [(name, count)] = counts.items()
        print(json.dumps(injection(name, count, arguments.seed, arguments.folder)()._asdict()))
        return
    rows = []
    for name, count in counts.items():
        rows.append(in_a_process(name, count, arguments.seed, arguments.folder))
        print(f"{rows[-1].fault}: {rows[-1].held} of {rows[-1].injected}; {rows[-1].note}", file=sys.stderr, flush=True)
    cells = [[row.fault, row.required, f"{row.injected:,}", f"{row.held:,}", row.note] for row in rows]
    print(tables.markdown(["fault", "what must happen", "injected", "held", "seen"], cells))
    sys.exit(not all(row.passed for row in rows))


if __name__ == "__main__":
    main()
