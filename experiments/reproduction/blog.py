"""The folder of the reproduction's pages, and the curves of the blog post that it has."""

import csv
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "docs" / "reproduction"
CURVES, RUNS = "blog_curves.csv", "runs"  # its file of the blog's curves, and its ledger


def read(path: Path = FOLDER / CURVES) -> dict[str, list[dict[str, float]]]:
    """Returns the rows of the blog post by model."""
    blog: dict[str, list[dict[str, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            blog.setdefault(row.pop("model"), []).append({k: int(v) if k == "epoch" else float(v) for k, v in row.items()})
    return blog
