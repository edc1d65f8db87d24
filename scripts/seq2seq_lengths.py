"""Exact match against the length of the source, of runs of `reversal`: a figure and its numbers.

python scripts/seq2seq_lengths.py docs/seq2seq/reversal attention=runs/reversal "fixed context=runs/reversal-fixed"

Writes reversal.png and reversal.csv. The numbers are those of the test splits: in this task source and target have the same
length. Those of a finished run are in its `result.json`; of one that has been stopped, the last checkpoint decodes the split.
"""

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

Counts = Mapping[int, tuple[int, int]]  # by length: the number of sequences, and of those that are reversed exactly


def read(folder: str) -> Counts:
    """Returns the counts of a run."""
    result = Path(folder) / "result.json"
    if not result.exists():
        return decoded(folder)
    found = json.loads(result.read_text())["test"]["by_target_length"]
    return {int(length): (number, exact) for length, (number, exact) in found.items()}


def decoded(folder: str) -> Counts:
    """Returns the counts of the last checkpoint of a run, which decodes every sequence of the test split greedily."""
    import experiments
    from experiments import pair_predict
    from experiments.data import pairs

    run, found = experiments.load(folder), {}
    rows = pairs.rows(run.config.data)["test"]
    answers = pair_predict.answers(run, (row.source.encode() for row in rows), batch_size=500)
    for row, answer in zip(rows, answers, strict=True):
        number, exact = found.get(len(row.target), (0, 0))
        found[len(row.target)] = number + 1, exact + (run.tokenizer.text(answer.targets[0][0]) == row.target)
    return found


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


def main(stem: str, *named: str) -> None:
    runs = {name: read(folder) for name, _, folder in (text.partition("=") for text in named)}
    write(Path(stem).with_suffix(".csv"), runs)
    draw(Path(stem).with_suffix(".png"), runs)
    for name, counts in runs.items():
        print(f"{name}: " + ", ".join(f"{n}: {counts[n][1] / counts[n][0]:.2f}" for n in sorted(counts)))


if __name__ == "__main__":
    main(*sys.argv[1:])
