"""How the cost of convolution, recurrence, self-attention and cross-attention grows with the length n and the width d.

    python scripts/complexity.py                  # measures, and writes docs/complexity/rows.csv and paths.csv
    python scripts/complexity.py --only-figure    # draws docs/complexity/growth.png from these files, and prints the tables

One layer and one sequence, in float32. FLOPs and sequential steps are counted on the program, time and memory are measured for
a forward and a backward pass, and the longest path is measured by gradient: see `scripts/growth/`. Time is CPU time, of all
threads together, so that the exponents mean the same on a busy machine. An exponent is e in cost = c · size^e, fitted to the
larger half of the sizes.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from matplotlib.figure import Figure

from experiments.report import figure_files, tables
from experiments.report.curves import COLOURS
from scripts.growth import kinds, measure, reach
from scripts.growth.measure import Row
from scripts.turns import conditions

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "complexity"
LENGTHS, WIDTHS = tuple(2**i for i in range(6, 14)), (16, 32, 64, 128, 256)
WIDTH, LENGTH, OTHER = 64, 512, 256  # where the other size varies; and the other sequence's length in cross-attention
PATH_LENGTHS, PATH_KINDS = (64, 256, 1024), ("convolution", "recurrence", "attention, dense")
_TYPES: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(Row._fields, int),
    "kind": str,
    "steps": lambda text: int(text) if text else None,
    "cpu_ms": float,
}
SIZES = {"n": LENGTHS, "d": WIDTHS}
PANELS: list[tuple[str, str, str]] = [  # column, by which size, title
    ("flops", "n", f"FLOPs, forward (d = {WIDTH})"),
    ("cpu_ms", "n", f"CPU ms, forward and backward (d = {WIDTH})"),
    ("temporary_bytes", "n", f"temporary bytes, both passes (d = {WIDTH})"),
    ("flops", "d", f"FLOPs, forward (n = {LENGTH})"),
    ("cpu_ms", "d", f"CPU ms, forward and backward (n = {LENGTH})"),
    ("steps", "n", "sequential steps (lines), longest path (dots)"),
]


def wanted() -> list[tuple[str, int, int, int]]:
    """The kinds and sizes (n, m, d) that are measured, the small ones first."""
    cases = {(kind, n, n, WIDTH) for kind in kinds.KINDS for n in LENGTHS}
    cases |= {(kind, LENGTH, LENGTH, d) for kind in kinds.KINDS for d in WIDTHS}
    chunked = "attention, chunked"
    cases |= {(chunked, n, OTHER, WIDTH) for n in LENGTHS} | {(chunked, OTHER, n, WIDTH) for n in LENGTHS}
    return sorted(cases, key=lambda case: (kinds.KINDS[case[0]].products(*case[1:]), case))


def chosen(rows: Sequence[Row], kind: str, size: str, n: int | None = None, m: int | None = None) -> list[Row]:
    """The rows of a kind in which one size varies. With n or m that length is held, as in cross-attention."""
    if n is not None or m is not None:
        found = [row for row in rows if row.kind == kind and row.d == WIDTH and (row.n == n or row.m == m)]
    else:
        held = {"n": ("d", WIDTH), "d": ("n", LENGTH)}[size]
        found = [row for row in rows if row.kind == kind and row.n == row.m and getattr(row, held[0]) == held[1]]
    return sorted(found, key=lambda row: (row.n * row.m, row.d))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """e in cost = c · size^e, by least squares of the logarithms, over the larger half of the sizes."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(costs[half:]), 1)[0])


def exponents(rows: Sequence[Row], size: Callable[[Row], float]) -> list[str]:
    """The exponents of FLOPs, CPU time and memory."""
    costs = ("flops", "cpu_ms", "temporary_bytes")
    return [f"{exponent([size(row) for row in rows], [getattr(row, cost) for row in rows]):.2f}" for cost in costs]


def tables_of(rows: Sequence[Row], paths: Sequence[dict[str, Any]]) -> str:
    """The tables of the page."""
    parts = []
    for size in SIZES:
        header = ["layer", "theory", f"FLOPs / products, largest {size}", "FLOPs", "CPU time", "memory"]
        body = []
        for kind, (_, _, order, *_) in kinds.KINDS.items():
            found = chosen(rows, kind, size)
            most = found[-1]
            body.append(
                [
                    kind,
                    order,
                    f"{most.flops / most.products:.3f}",
                    *exponents(found, lambda row, size=size: getattr(row, size)),
                ]
            )
        parts.append(tables.markdown([*header[:3], *(f"{name}: exponent of {size}" for name in header[3:])], body))
    parts.append(_cross_table(rows))
    parts.append(_path_table(rows, paths))
    return "\n\n".join(parts)


def _cross_table(rows: Sequence[Row]) -> str:
    kind, body = "attention, chunked", []
    cases: list[tuple[str, list[Row], Callable[[Row], float]]] = [
        (f"queries n, keys {OTHER}", chosen(rows, kind, "n", m=OTHER), lambda row: row.n),
        (f"queries {OTHER}, keys n", chosen(rows, kind, "n", n=OTHER), lambda row: row.m),
        ("queries n, keys n", chosen(rows, kind, "n"), lambda row: row.n),
    ]
    for name, found, size in cases:
        body.append([name, *exponents(found, size)])
    return tables.markdown(["lengths", *(f"{name}: exponent of n" for name in ("FLOPs", "CPU time", "memory"))], body)


def _path_table(rows: Sequence[Row], paths: Sequence[dict[str, Any]]) -> str:
    body = []
    for kind in PATH_KINDS:
        steps = {row.n: row.steps for row in chosen(rows, kind, "n")}
        path = {int(row["n"]): row["layers"] for row in paths if row["kind"] == kind}
        about = kinds.KINDS[kind]
        body.append(
            [
                kind,
                about.steps,
                *(str(steps[n]) for n in PATH_LENGTHS),
                about.path,
                *(str(path[n]) for n in PATH_LENGTHS),
            ]
        )
    header = ["layer", "steps, theory", *(f"n = {n}" for n in PATH_LENGTHS)]
    return tables.markdown([*header, "longest path, theory", *(f"path, n = {n}" for n in PATH_LENGTHS)], body)


def figure(rows: Sequence[Row], paths: Sequence[dict[str, Any]]) -> Figure:
    """The figure of the page: a panel for each cost, with double logarithmic axes."""
    drawn = Figure(figsize=(12, 7.5), layout="constrained")
    for axes, (column, size, title) in zip(drawn.subplots(2, 3).flat, PANELS, strict=True):
        for index, kind in enumerate(kinds.KINDS):
            found = [row for row in chosen(rows, kind, size) if getattr(row, column) is not None]
            colour = COLOURS[index]
            x, y = ([getattr(row, name) for row in found] for name in (size, column))
            axes.plot(x, y, color=colour, marker="o" if column != "steps" else None, markersize=3, label=kind)
            if column == "steps":
                dots = [(int(row["n"]), int(row["layers"])) for row in paths if row["kind"] == kind]
                axes.plot(*zip(*dots, strict=True) if dots else ([], []), "o", color=colour)
        axes.set(xscale="log", yscale="log", title=title, xlabel=size)
        axes.set_xticks(SIZES[size], [f"{x}" for x in SIZES[size]], rotation=45)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    drawn.axes[0].legend(frameon=False)
    return drawn


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(folder: Path) -> list[Row]:
    """The rows of a folder, in which None is an empty field."""
    return [Row(**{name: _TYPES[name](row[name]) for name in Row._fields}) for row in read(folder / "rows.csv")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only-figure", action="store_true")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"--folder={options.folder} must be a folder")
    if not options.only_figure:
        found = []
        for case in wanted():
            row = measure.measure(*case)._asdict()
            found.append(row | {"cpu_ms": float(f"{row['cpu_ms']:.4g}")})
            print(*found[-1].values(), file=sys.stderr, flush=True)
            write(options.folder / "rows.csv", found)
        distances = [{"kind": kind, "n": n, "layers": reach.longest_path(kind, n)} for kind in PATH_KINDS for n in PATH_LENGTHS]
        write(options.folder / "paths.csv", distances)
        print(conditions(f"n {LENGTHS[0]} to {LENGTHS[-1]}, d {WIDTHS[0]} to {WIDTHS[-1]}", 1, ()))
    rows, paths = read_rows(options.folder), read(options.folder / "paths.csv")
    figure_files.save(figure(rows, paths), options.folder / "growth")
    print("\n" + tables_of(rows, paths))


if __name__ == "__main__":
    main()
