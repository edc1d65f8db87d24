"""The error of each implementation of `attn.attend` against a float64 reference with explicit loops, for every test case.

    python scripts/attention_exactness.py

A cell has two errors: that of the output, and the largest among the gradients of query, key, value and every learned array of
the case. An error is the largest difference divided by the largest entry. The tests allow 2e-6 for outputs and 1e-5 for
gradients in float32, and 1e-12 for both in float64.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import jax
import numpy as np
from cases import CASES
from test_attend import IMPLEMENTATIONS, errors

from experiments.report import tables


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # many small programs, for which compiling is what takes time
    rows = []
    for name, case in CASES.items():
        print(name, file=sys.stderr, flush=True)
        cells = [name]
        for dtype in ("float32", "float64"):
            for implementation in IMPLEMENTATIONS:
                if case.dense_alone and implementation != "dense":
                    cells.append("refused")
                else:
                    value, gradient = errors(name, implementation, dtype)
                    cells.append(f"{value:.0e} · {gradient:.0e}")
        rows.append(cells)
    print(f"jax {jax.__version__}, numpy {np.__version__}, {jax.default_backend()}: output · worst gradient\n")
    print(tables.markdown(["case", *(f"{name}, {bits}" for bits in ("f32", "f64") for name in IMPLEMENTATIONS)], rows))


if __name__ == "__main__":
    main()
