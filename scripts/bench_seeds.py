"""The time of several seeds in one program, over that of as many runs one after the other.

    python scripts/bench_seeds.py                                  # 8 seeds on the embedded corpus
    python scripts/bench_seeds.py --page single_head --data imdb --epochs 2 --seeds 4 --rounds 1

Both start processes as a user does, with a compilation cache that the first ones have filled, and run in turn. The rows are:

- "whole": the time from the command to its end. One process starts once, reads the corpus once and loads each program once.
- "step": the mean time of a train step of a run.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import settings
from experiments.report import tables
from experiments.storage import run_folder
from scripts.turns import conditions, spread

ROOT = Path(__file__).resolve().parent.parent


def seconds_of(page: str, epochs: int, folder: Path, *flags: str) -> float:
    """Runs `train` in a process of its own. Returns its seconds."""
    command = [sys.executable, "-m", "experiments", "train", f"--config={page}", f"--config.epochs={epochs}"]
    started = time.perf_counter()
    subprocess.run([*command, f"--workdir={folder}", *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def step_milliseconds(folder: Path, seeds: int) -> float:
    """Returns the mean time of a step over all runs and epochs but the first one."""
    rows = [run_folder.read_rows(folder / f"seed_{seed}") for seed in range(seeds)]
    return statistics.fmean(row["step_milliseconds"] for run in rows for row in run[min(1, len(run) - 1) :])


def turn(page: str, epochs: int, seeds: int) -> dict[str, float]:
    """Trains the seeds together, then one after the other. Returns the ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        together = seconds_of(page, epochs, folder / "together", f"--config.seeds=0..{seeds - 1}")
        alone = sum(
            seconds_of(page, epochs, folder / "alone" / f"seed_{seed}", f"--config.seed={seed}") for seed in range(seeds)
        )
        steps = [step_milliseconds(folder / name, seeds) for name in ("together", "alone")]
    print(f"together {together:.1f} s, one after the other {alone:.1f} s", file=sys.stderr, flush=True)
    return {"whole": together / alone, "step": steps[0] / steps[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", choices=settings.MODELS, default="transformer")
    parser.add_argument("--data", choices=settings.CORPORA, default="verdicts")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        page = f"{ROOT / 'configs' / values.page}.py:{values.data}"
        turn(page, 1, 1)  # fills the cache
        ratios = [turn(page, values.epochs, values.seeds) for _ in range(values.rounds)]
    rows = [[name, *spread([ratio[name] for ratio in ratios])] for name in ratios[0]]
    print(conditions(f"{values.page} on {values.data}, {values.epochs} epochs, {values.seeds} seeds", values.rounds, ()))
    print("\n" + tables.markdown(["together / one after the other", "median", "min", "max"], rows))


if __name__ == "__main__":
    main()
