"""Into how many heads the blog's `multi_head` and `transformer` split their width, by the likelihood of their curves.

    python scripts/head_split.py  # seconds

The blog tells the parameter counts of its models, and so the number of heads times key_dim, but not the two numbers. The runs
of the ledgers with the right product are the candidates. For each set of columns, the first table says how often the method
finds the split of one of our own runs, which is left out and then compared with the others; the temperature that makes its
likelihoods as sure as they may be; the mean probability of the true split with it; and the probability of each split for the
blog's curve. The second table says for which split it takes our runs of each split, with all columns.
`experiments.reproduction.likelihood` is the method.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.report import pages, runs, tables
from experiments.report.heads import HEADS, KEY_DIM
from experiments.report.runs import Run
from experiments.reproduction import blog, likelihood
from experiments.reproduction.likelihood import Curves

LEDGERS = (blog.FOLDER.parent / "head-ablation" / "runs", blog.FOLDER / blog.RUNS)
WIDTHS = {"multi_head": 4, "transformer": 32}  # num_heads × key_dim, which the blog's parameter counts tell
COLUMNS = {
    "validation": ("val_loss", "val_accuracy"),
    "training": ("train_loss", "train_accuracy"),
    "all": ("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
}


def candidates(found: Sequence[Run], model: str, columns: Sequence[str]) -> Curves:
    """Returns the curves of each split of the width of a model, such as "2 × 16", with the fewest heads first."""
    splits: dict[tuple[int, int], list[Sequence[Mapping[str, Any]]]] = {}
    for run in found:
        heads, size = run.config[HEADS], run.config[KEY_DIM]
        changed = pages.differing(run.config, model, "imdb").keys()
        if run.state == "finished" and heads * size == WIDTHS[model] and changed <= {HEADS, KEY_DIM}:
            splits.setdefault((heads, size), []).append(run.rows)
    return {f"{heads} × {size}": likelihood.values_of(rows, columns) for (heads, size), rows in sorted(splits.items())}


def of_model(found: Sequence[Run], model: str, theirs: Sequence[Mapping[str, float]]) -> str:
    """Returns both tables of a model."""
    lines: list[list[str]] = []
    splits: list[str] = []
    confused: Counter[tuple[str, str]] = Counter()
    for name, columns in COLUMNS.items():
        known = candidates(found, model, columns)
        splits = list(known)
        held_out = likelihood.held_out(known)
        confused = Counter((true, max(logs, key=lambda split: logs[split])) for true, logs in held_out)
        hits = sum(count for (true, taken), count in confused.items() if true == taken)
        warmth = likelihood.temperature(held_out)
        mean = fmean(likelihood.posterior(logs, warmth)[true] for true, logs in held_out)
        blogs = likelihood.posterior(likelihood.log_likelihoods(likelihood.values_of([theirs], columns)[0], known), warmth)
        numbers = [f"{warmth:.1f}", f"{mean:.2f}", *(f"{blogs[split]:.3f}" for split in splits)]
        lines.append([name, f"{hits} of {len(held_out)}", *numbers])
    header = [model, "found", "temperature", "mean probability", *(f"blog: {split}" for split in splits)]
    first = tables.markdown(header, lines)
    rows = [[true, *(str(confused[true, taken]) for taken in splits)] for true in splits]
    return f"{first}\n\n{tables.markdown(['split of the run', *(f'taken for {split}' for split in splits)], rows)}"


def report() -> str:
    """Returns the tables of both models."""
    found = runs.read([str(ledger) for ledger in LEDGERS])
    theirs = blog.read()
    return "\n\n".join(of_model(found, model, theirs[model]) for model in WIDTHS)


if __name__ == "__main__":
    print(report())
