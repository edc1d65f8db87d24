"""Draws the sinusoidal table of positions, and that a step in position is a rotation: `docs/positions/sinusoidal.png`.

    python scripts/positions.py

Left: the table of 64 positions and 32 dimensions (Vaswani et al. 2017, section 3.5). Middle: two of its pairs of a sine and a
cosine; from any position, 3 positions on is the same turn. Right: so the inner product of two rows depends on their distance
only, and that of a rotated query and a rotated key (Su et al. 2021) does as well. A line is drawn for each of several positions
of the query; they are the same line.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attn.positions import rotary, sinusoidal
from experiments.report import figure_files
from experiments.report.curves import COLOURS

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "positions"
LENGTH, DIM, STEP = 64, 32, 3
PAIRS = (2, 4)  # of the table, that are drawn as circles
QUERIES, DISTANCES = (0, 9, 20), np.arange(40)


def turned(rows: np.ndarray, step: int) -> np.ndarray:
    """Rows of the interleaved table, with each pair (sine, cosine) turned by the angle of `step` positions, in float64."""
    frequencies = 10_000.0 ** (-np.arange(0, rows.shape[-1], 2) / rows.shape[-1])
    sine, cosine = rows[:, 0::2], rows[:, 1::2]
    cos, sin = np.cos(step * frequencies), np.sin(step * frequencies)
    return np.stack([sine * cos + cosine * sin, cosine * cos - sine * sin], axis=-1).reshape(rows.shape)


def rotary_scores(query_position: int) -> np.ndarray:
    """The scores of a rotated query with the same key at each of DISTANCES from it; more digits would vary by machine."""
    query, key = (jax.random.normal(jax.random.key(seed), (1, 1, DIM)) for seed in (0, 1))
    keys = jnp.broadcast_to(key, (len(DISTANCES), 1, DIM))
    rotated = rotary(query, jnp.array([query_position])), rotary(keys, jnp.asarray(query_position + DISTANCES))
    return np.round(np.asarray(jnp.einsum("tnh,snh->s", *rotated), np.float64), 3)


def figure() -> Figure:
    """The three panels."""
    drawn = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    table = np.asarray(sinusoidal(LENGTH, DIM), np.float64)
    image = left.imshow(table.T, cmap="RdBu", aspect="auto", vmin=-1, vmax=1, interpolation="nearest")
    left.set(title="the sinusoidal table", xlabel="position", ylabel="dimension")
    drawn.colorbar(image, ax=left)
    for pair, colour in zip(PAIRS, COLOURS, strict=False):
        _draw_pair(middle, table[:12, 2 * pair : 2 * pair + 2], f"dimensions {2 * pair} and {2 * pair + 1}", colour, pair)
    middle.set(title=f"{STEP} positions on is one rotation", xlabel="sine, from position 0", ylabel="cosine", aspect="equal")
    middle.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    middle.legend(frameon=False, loc="center left", fontsize=8)
    for t, width in zip(QUERIES, (6, 3, 1), strict=True):
        products = table[t] @ table[t + DISTANCES].T
        right.plot(DISTANCES, products, color=COLOURS[0], linewidth=width, alpha=0.5, label=_label("table", t))
        right.plot(DISTANCES, rotary_scores(t), color=COLOURS[1], linewidth=width, alpha=0.5, label=_label("rotary", t))
    right.set(title="inner products", xlabel="distance")
    right.grid(alpha=0.25)
    right.legend(frameon=False, fontsize=8, loc="upper center")
    return drawn


def _label(name: str, query_position: int) -> str | None:
    """One entry of the legend for all queries."""
    return f"{name}, queries at {', '.join(map(str, QUERIES))}" if query_position == QUERIES[0] else None


def _draw_pair(axes: Axes, points: np.ndarray, label: str, colour: str, pair: int) -> None:
    scale = 1 - 0.12 * PAIRS.index(pair)  # so that the circles do not lie on each other
    x, y = scale * points.T
    axes.plot(x, y, "o", color=colour, markersize=4, label=label)
    for start in (0, 4):
        axes.annotate(
            "",
            (x[start + STEP], y[start + STEP]),
            (x[start], y[start]),
            arrowprops={"arrowstyle": "->", "color": colour, "connectionstyle": "arc3,rad=0.3"},
        )
        axes.annotate(f"{start}", (x[start], y[start]), textcoords="offset points", xytext=(4, 4), fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"--folder={options.folder} must be a folder")
    figure_files.save(figure(), options.folder / "sinusoidal")
    table = np.asarray(sinusoidal(LENGTH, DIM), np.float64)
    for step in (1, STEP, 17):
        error = np.abs(turned(table[:-step], step) - table[step:]).max()
        print(f"row t + {step} is row t turned, for all t: largest difference {error:.1e}")


if __name__ == "__main__":
    main()
