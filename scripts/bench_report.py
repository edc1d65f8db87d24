"""How long `report` takes for many runs, and how often its two intervals hold the true mean.

    python scripts/bench_report.py --runs 1000
    python scripts/bench_report.py --coverage 20000

The runs are ledger files with invented numbers: groups of five seeds, which differ in heads, learning rate and page.
Each round is a process of its own, from its start to its end.
"""

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from experiments import settings
from experiments.machine import devices
from experiments.report import tables
from experiments.report.statistics import summary

ROOT = Path(__file__).resolve().parent.parent
SEEDS = 5  # of a group


def entry(page: str, heads: int, rate: float, seed: int, epochs: int) -> list[dict[str, Any]]:
    """The lines of a ledger file with invented numbers."""
    config = settings.load_page(page, "imdb")
    config.seed, config.epochs, config.learning_rate, config.model.num_heads = seed, epochs, rate, heads
    rng = np.random.default_rng(seed)
    lifted = 1 - np.exp(-np.arange(1, epochs + 1) / 3) + rng.normal(0, 0.01, epochs)
    rows = [
        {
            "epoch": epoch,
            "step": 30 * epoch,
            "train_loss": 0.69 - 0.5 * height,
            "train_accuracy": 0.5 + 0.4 * height,
            "val_loss": 0.69 - 0.4 * height,
            "val_accuracy": 0.5 + 0.38 * height,
            "examples_per_second": 2000 + 10 * rng.normal(),
            "real_tokens_per_second": 400_000 + 1000 * rng.normal(),
            "step_milliseconds": 250 + rng.normal(),
            "compile_seconds": 3.0 if epoch == 1 else 0.0,
        }
        for epoch, height in enumerate(lifted.tolist(), start=1)
    ]
    best = max(rows, key=lambda row: row["val_accuracy"])
    result = {"label": page, "parameters": 160_000, "epochs": epochs, "best_epoch": best["epoch"]}
    result |= {f"best_{name}": best[name] for name in ("val_loss", "val_accuracy")}
    result |= {f"final_{name}": rows[-1][name] for name in ("val_loss", "val_accuracy")}
    result |= {"test_loss": rows[-1]["val_loss"], "test_accuracy": rows[-1]["val_accuracy"], "device": "invented"}
    result |= {"train_seconds": 7.5 * epochs, "compile_seconds": 3.0, "vocabulary_size": 9999, "max_length": 256}
    return [{"config": settings.flatten(config), "result": result}, *rows]


def write(folder: Path, runs: int, epochs: int) -> None:
    """Writes so many ledger files."""
    groups = -(-runs // SEEDS)
    kinds = itertools.product(range(groups), settings.MODELS[2:], (1, 2, 4, 8))
    for group, (number, page, heads) in enumerate(itertools.islice(kinds, groups)):
        for seed in range(min(SEEDS, runs - SEEDS * group)):
            lines = entry(page, heads, 1e-3 / (1 + number), seed, epochs)
            (folder / f"{group:04}-{seed}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def measure(runs: int, epochs: int, rounds: int) -> list[list[str]]:
    """The seconds of the command, and the size of its page."""
    with tempfile.TemporaryDirectory() as name:
        ledger, out = Path(name) / "ledger", Path(name) / "out"
        ledger.mkdir()
        write(ledger, runs, epochs)
        seconds = []
        for _ in range(rounds):
            started = time.perf_counter()
            command = [sys.executable, "-m", "experiments", "report", str(ledger), f"--out={out}"]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        mebibytes = (out / "report.html").stat().st_size / 2**20
    times = [f"{each:.2f}" for each in (min(seconds), statistics.median(seconds), max(seconds))]
    return [[f"{runs:,}", str(epochs), *times, f"{mebibytes:.2f}"]]


def coverage(simulations: int) -> list[list[str]]:
    """How often the intervals of normal seeds and of exponential ones hold the true mean."""
    rows = []
    for n in (2, 3, 5, 10):
        cells = []
        for law in ("normal", "skewed"):
            rng = np.random.default_rng(n)
            drawn = rng.normal(size=(simulations, n)) if law == "normal" else rng.exponential(size=(simulations, n)) - 1
            found = [each for values in drawn if (each := summary(values.tolist()))]
            for kind in ("student", "bootstrap"):
                held = [low <= 0 <= high for low, high in (getattr(each, kind) for each in found)]
                cells.append(f"{100 * statistics.mean(held):.1f}")
        rows.append([str(n), *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--coverage", type=int, metavar="N", help="simulate the intervals N times instead")
    arguments = parser.parse_args()
    for name in ("runs", "epochs", "rounds", "coverage"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name}={getattr(arguments, name)} is not positive")
    if arguments.coverage:
        header = ["seeds", "normal, t", "normal, bootstrap", "exponential, t", "exponential, bootstrap"]
        print(tables.markdown(header, coverage(arguments.coverage)))
        return
    print(f"{devices.cores()} cores, {platform.processor() or platform.machine()}, Python {platform.python_version()}")
    header = ["runs", "epochs", "seconds, fastest", "median", "slowest", "MiB of the page"]
    print(tables.markdown(header, measure(arguments.runs, arguments.epochs, arguments.rounds)))


if __name__ == "__main__":
    main()
