"""How far our layers are from their partners', with the same weights: the tests that say so, as a table.

    python scripts/layer_agreement.py     # needs keras and torch, of the extra "peers"

Each row is a test of tests/: the largest difference of outputs and returned weights, and of the gradients of inputs and
weights, over the largest entry. A test fails where one is over its tolerance: 1e-6 in float32 and 1e-12 in float64. Keras'
tanh and its fused path are float32 also there; and the gradient of its one concat weight is a long float32 sum: 2e-6.
"""

import contextlib
import importlib
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest

from experiments import report

TESTS = Path(__file__).resolve().parent.parent / "tests"
PARTNERS = {
    "test_parity_keras.py": "Keras",
    "test_parity_torch.py": "PyTorch",
    "test_parity_flax.py": "Flax",
    "test_layers_d2l.py": "d2l in PyTorch",
}


class Recorded:
    """A plugin of pytest that keeps what the tests record."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        found = dict(report.user_properties)
        if report.when == "call" and "values" in found:
            file, _, case = report.nodeid.rpartition("/")[-1].partition("::")
            name, _, options = case.partition("[")
            layer = name.removeprefix("test_").replace("_", " ")
            numbers = [f"{found[part]:.0e}" for part in ("values", "gradients")]
            self.rows.append([PARTNERS[file], layer, options.removesuffix("]").replace("|", "/"), *numbers])


def main() -> None:
    recorded = Recorded()
    files = [str(TESTS / file) for file in PARTNERS]
    with contextlib.redirect_stdout(sys.stderr):
        failed = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *files], plugins=[recorded])
    if failed:
        sys.exit("a test failed, see above")
    modules = {name: importlib.import_module(name).__version__ for name in ("jax", "flax", "keras", "torch", "numpy")}
    versions = {"python": platform.python_version(), **modules}
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + f"; {len(recorded.rows)} cases\n")
    print(report.table(["partner", "test", "case", "values", "gradients"], recorded.rows))


if __name__ == "__main__":
    main()
