"""What attention adds to a linear model over n-grams: their runs in pairs, on the same test reviews.

python scripts/what_attention_adds.py runs/what-attention-adds --out=docs/what-attention-adds

The folder has runs of configs/ngram_attention.py and configs/ngram_linear.py, at any depth. A run with attention and a linear
one of the same seed and choice of n-grams are a pair if they have equally many numbers, within a hundredth for the places, or
if they have the same n-grams. Writes runs.csv (a row for each run), pairs.csv (one for each pair, with McNemar's test) and
accuracy.png. With --figure it only draws the picture from runs.csv.
"""

import argparse
import csv
import functools
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

from attn.shapes import Array
from experiments import settings
from experiments.data.corpus import Split
from experiments.storage import run_folder
from experiments.training import build

LINEAR = "linear"
COLOURS = {LINEAR: "#777777", "attention, context": "#0072b2", "attention, tied": "#009e73", "attention, own": "#d55e00"}
SAME_SIZE = 0.01
BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="a folder with runs")
    parser.add_argument("--out", type=Path, required=True, help="where the tables and the picture are written")
    parser.add_argument("--figure", action="store_true", help="only draw the picture")
    arguments = parser.parse_args()
    if not arguments.figure:
        if arguments.runs is None:
            parser.error("the folder with the runs is missing")
        tables(arguments.runs, arguments.out)
    draw(arguments.out)


def tables(runs: Path, out: Path) -> None:
    """Writes runs.csv and pairs.csv, and prints the pairs."""
    folders = sorted(path.parent for path in runs.rglob("result.json"))
    found: list[tuple[dict[str, Any], np.ndarray]] = []
    for folder in folders:
        found.append(judged(folder))
        print(folder, found[-1][0], flush=True)
    write(out / "runs.csv", [row for row, _ in found])
    linear, others = ([each for each in found if (each[0]["model"] == LINEAR) == wanted] for wanted in (True, False))
    write(out / "pairs.csv", [pair(other, twin) for other in others for twin in linear if paired(other[0], twin[0])])
    print((out / "pairs.csv").read_text())


_TESTS: dict[str, Split] = {}


def tests(data: str, run: run_folder.Run) -> Split:
    """Returns the test split of a run's data, which several runs share."""
    if data not in _TESTS:
        _TESTS[data] = build.build_corpus(run.config).test()
    return _TESTS[data]


def predictions(run: run_folder.Run, test: Split) -> np.ndarray:
    """Returns the most probable class of each text, `[E]`. Short texts are cut to a quarter of the length, which is faster."""
    lengths, found = np.count_nonzero(test.tokens, axis=1), np.zeros(len(test.labels), np.int64)
    quarter = test.tokens.shape[1] // 4
    for chosen, length in (lengths <= quarter, quarter), (lengths > quarter, test.tokens.shape[1]):
        places = np.flatnonzero(chosen)
        for start in range(0, len(places), BATCH):
            some = places[start : start + BATCH]
            tokens = np.zeros((BATCH, length), np.int32)
            tokens[: len(some)] = test.tokens[some, :length]
            found[some] = predicted(run.model, run.params, tokens)[: len(some)]
    return found


@functools.partial(jax.jit, static_argnums=0)
def predicted(model: build.AnyModel, params: Any, tokens: Array) -> Array:
    """Returns the most probable class of each text."""
    return jnp.argmax(jnp.asarray(model.apply({"params": params}, tokens)), -1)


def judged(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the row of a run, and which test reviews it is right about."""
    run, result = run_folder.load(folder), run_folder.read_result(folder)
    test = tests(json.dumps(run.config.data.to_dict(), sort_keys=True), run)
    correct = predictions(run, test) == test.labels
    if not math.isclose(correct.mean(), result["test_accuracy"], abs_tol=2e-4):
        raise SystemExit(f"{folder}: {correct.mean()} here and {result['test_accuracy']} in its result")
    fields = settings.flatten(run.config)
    row = {
        "model": LINEAR if fields["model.body"] == "ngram_linear" else f"attention, {fields['model.logits']}",
        "choice": fields["data.ngram_choice"],
        "longest": fields["data.ngrams"],
        "ngrams": fields["data.ngram_features"],
        "parameters": result["parameters"],
        "seed": fields["seed"],
        "train_seconds": round(result["train_seconds"], 1),
        "validation_accuracy": round(result["final_val_accuracy"], 4),
        "test_accuracy": round(float(correct.mean()), 5),
    }
    return row, correct


def paired(other: dict[str, Any], twin: dict[str, Any]) -> bool:
    """Returns whether a run with attention is compared with a linear one."""
    if any(other[name] != twin[name] for name in ("choice", "seed")):
        return False
    same_ngrams = all(other[name] == twin[name] for name in ("ngrams", "longest"))
    return same_ngrams or math.isclose(other["parameters"], twin["parameters"], rel_tol=SAME_SIZE)


def pair(attention: tuple[dict[str, Any], np.ndarray], linear: tuple[dict[str, Any], np.ndarray]) -> dict[str, Any]:
    """Returns the row of a pair: how many reviews only one of the two is right about, and McNemar's z."""
    (row, right), (twin, also_right) = attention, linear
    only_attention, only_linear = int(np.sum(right & ~also_right)), int(np.sum(also_right & ~right))
    return {name: row[name] for name in ("model", "choice", "longest", "seed", "parameters")} | {
        "linear_parameters": twin["parameters"],
        "attention": float(np.round(right.mean(), 5)),
        "linear": float(np.round(also_right.mean(), 5)),
        "only_attention_right": only_attention,
        "only_linear_right": only_linear,
        "z": round((only_attention - only_linear) / math.sqrt(max(only_attention + only_linear, 1)), 2),
    }


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows of the same fields as a table."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(out: Path) -> None:
    """Draws the test accuracy against the number of parameters: the mean of the seeds, and each seed."""
    points = defaultdict(lambda: defaultdict(list))
    with (out / "runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            hashed = ", hashed" if row["choice"] == "hashed" else ""
            points[row["model"] + hashed][int(row["parameters"])].append(100 * float(row["test_accuracy"]))
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, sizes in sorted(points.items()):
        colour, hashed = COLOURS[name.removesuffix(", hashed")], name.endswith("hashed")
        means = [(size, np.mean(found)) for size, found in sorted(sizes.items())]
        axes.plot(*zip(*means, strict=True), color=colour, linestyle="--" if hashed else "-", marker="s" if hashed else "o")
        axes.plot([], [], color=colour, linestyle="--" if hashed else "-", marker="s" if hashed else "o", label=name)
        for size, found in sizes.items():
            axes.scatter([size] * len(found), found, color=colour, s=8, alpha=0.5)
    axes.set(xscale="log", xlabel="parameters", ylabel="test accuracy in percent, IMDB")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out / "accuracy.png", dpi=150)


if __name__ == "__main__":
    main()
