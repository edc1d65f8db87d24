"""Trains two models on the embedded corpus in float32 and in bfloat16, and draws their curves.

    python scripts/precision_curves.py --figure docs/precision.png

Prints a table with the test accuracy over seeds, and the time of a train step in the epoch that was the fastest. The two dtypes
take turns, so that what else the machine does meets both.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from matplotlib.figure import Figure

from experiments import settings
from experiments.machine import devices
from experiments.report import tables
from experiments.report.curves import Rows
from experiments.storage import run_folder
from experiments.training import train

PAGES, DTYPES = ("transformer", "single_head"), ("float32", "bfloat16")


def config_of(page: str, dtype: str, seed: int) -> settings.Config:
    config = settings.load_page(page, "verdicts")
    config.seed, config.model.positions, config.model.dtype = seed, "sinusoidal", dtype
    return config


def cells(name: str, accuracies: list[float], curves: list[Rows]) -> list[str]:
    shown = (f"{value:.3f}" for value in (statistics.mean(accuracies), min(accuracies), max(accuracies)))
    return [name, *shown, f"{min(row['step_milliseconds'] for rows in curves for row in rows):.2f}"]


def draw(path: Path, curves: Mapping[str, list[Rows]]) -> None:
    """One panel for each model; a thick line is the mean of the seeds, and a thin line one of them."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, page in zip(figure.subplots(1, len(PAGES)), PAGES, strict=True):
        for dtype, colour in zip(DTYPES, ("#4477AA", "#EE6677"), strict=True):
            lines = [[row["val_accuracy"] for row in rows] for rows in curves[f"{page}, {dtype}"]]
            epochs = range(1, len(lines[0]) + 1)
            axes.plot(epochs, np.transpose(lines), color=colour, linewidth=0.7, alpha=0.6)
            axes.plot(epochs, np.mean(lines, axis=0), color=colour, linewidth=2, label=dtype)
        axes.set(title=page, xlabel="epoch", ylabel="validation accuracy")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--figure", type=Path, required=True)
    options = parser.parse_args()
    devices.start()
    accuracies: dict[str, list[float]] = {}
    curves: dict[str, list[Rows]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for page, seed, dtype in itertools.product(PAGES, range(options.seeds), DTYPES):
            name, workdir = f"{page}, {dtype}", Path(folder) / f"{page}-{dtype}-{seed}"
            result = train.train(config_of(page, dtype, seed), workdir, name)
            accuracies.setdefault(name, []).append(result["test_accuracy"])
            curves.setdefault(name, []).append(run_folder.read_rows(workdir))
    draw(options.figure, curves)
    header = [f"{options.seeds} seeds", "test accuracy", "lowest", "highest", "ms a step, fastest epoch"]
    print("\n" + tables.markdown(header, [cells(name, accuracies[name], curves[name]) for name in curves]))


if __name__ == "__main__":
    main()
