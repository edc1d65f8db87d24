"""How closely our layers agree with the same layers of other libraries, given the same weights, as a table.

    python scripts/layer_agreement.py     # needs keras and torch, which are part of the extra "peers"

Each row is a case of a test in tests/. "values" is the largest difference of outputs and returned weights, "gradients" that of
the gradients of inputs and weights; both are divided by the largest entry. The tests allow 1e-6 in float32 and 1e-12 in
float64, with two exceptions: Keras' tanh and its fused path compute in float32 whatever the dtype, and the gradient of Keras'
single concat weight is a float32 sum of many terms, for which 2e-6 is allowed.
"""

import contextlib
import importlib
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest

from experiments.report import tables

TESTS = Path(__file__).resolve().parent.parent / "tests"
LIBRARIES = {
    "test_parity_keras.py": "Keras",
    "test_parity_torch.py": "PyTorch",
    "test_parity_flax.py": "Flax",
    "test_layers_d2l.py": "d2l in PyTorch",
}


class Recorder:
    """A pytest plugin that collects the differences that the tests record."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        properties = dict(report.user_properties)
        if report.when == "call" and "values" in properties:
            file, _, case = report.nodeid.rpartition("/")[-1].partition("::")
            name, _, options = case.partition("[")
            layer = name.removeprefix("test_").replace("_", " ")
            numbers = [f"{properties[part]:.0e}" for part in ("values", "gradients")]
            self.rows.append([LIBRARIES[file], layer, options.removesuffix("]").replace("|", "/"), *numbers])


def main() -> None:
    recorder = Recorder()
    files = [str(TESTS / file) for file in LIBRARIES]
    with contextlib.redirect_stdout(sys.stderr):
        failed = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *files], plugins=[recorder])
    if failed:
        sys.exit("a test failed; see above")
    modules = {name: importlib.import_module(name).__version__ for name in ("jax", "flax", "keras", "torch", "numpy")}
    versions = {"python": platform.python_version(), **modules}
    print(", ".join(f"{name} {version}" for name, version in versions.items()) + f"; {len(recorder.rows)} cases\n")
    print(tables.markdown(["library", "test", "case", "values", "gradients"], recorder.rows))


if __name__ == "__main__":
    main()
