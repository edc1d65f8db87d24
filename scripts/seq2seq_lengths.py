"""Exact match against the length of the source, of runs of `reversal`: a figure and its numbers.

python scripts/seq2seq_lengths.py docs/seq2seq/reversal attention=runs/reversal "fixed context=runs/reversal-fixed"

Writes reversal.png and reversal.csv. The numbers are those of the test splits, from the `result.json` of each run: in this
task source and target have the same length.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

Counts = Mapping[int, tuple[int, int]]  # by length: the number of sequences, and of those that are reversed exactly


def read(folder: str) -> Counts:
    """Returns the counts of a finished run."""
    found = json.loads((Path(folder) / "result.json").read_text())["test"]["by_target_length"]
    return {int(length): (number, exact) for length, (number, exact) in found.items()}


def write(path: Path, runs: Mapping[str, Counts]) -> None:
    """Writes the numbers as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "length", "sequences", "exact"])
        writer.writerows([name, length, *counts[length]] for name, counts in runs.items() for length in sorted(counts))


def draw(path: Path, runs: Mapping[str, Counts]) -> None:
    """Draws one line for each run."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for (name, counts), marker in zip(runs.items(), "osD^v", strict=False):
        lengths = sorted(counts)
        axes.plot(lengths, [counts[n][1] / counts[n][0] for n in lengths], marker=marker, markersize=5, label=name)
    axes.set(xlabel="length of the source", ylabel="exact match on the test split", ylim=(-0.03, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=150)


def main(flags: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stem", type=Path, help="the path of both files, without their ending")
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    arguments = parser.parse_args(flags)
    runs = {name: read(folder) for name, _, folder in (text.partition("=") for text in arguments.runs)}
    write(arguments.stem.with_suffix(".csv"), runs)
    draw(arguments.stem.with_suffix(".png"), runs)
    for name, counts in runs.items():
        print(f"{name}: " + ", ".join(f"{n}: {counts[n][1] / counts[n][0]:.2f}" for n in sorted(counts)))


if __name__ == "__main__":
    main(sys.argv[1:])
