"""Which devices a run uses, and that their number changes no number of a step."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from experiments import predict
from experiments.errors import UsageError
from experiments.machine import devices
from experiments.storage import run_folder

FORCED = "--xla_force_host_platform_device_count"


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What eight_devices.py has found in a process to which XLA_FLAGS gives eight devices."""
    path = tmp_path_factory.mktemp("devices") / "found.npz"
    environment = os.environ | {"PYTHONPATH": f"{tiny.ROOT}{os.pathsep}{tiny.ROOT / 'tests'}"}
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FORCED}=8"
    del environment["JAX_NUM_CPU_DEVICES"]
    command = [sys.executable, str(tiny.ROOT / "tests" / "eight_devices.py"), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(np.load(path, allow_pickle=False))


def test_xla_flags_are_honoured(eight: dict[str, np.ndarray]):
    assert str(eight["described"]).startswith("8 CPU devices (")
    assert [int(eight[f"used {count}"]) for count in (1, 2, 8)] == [1, 2, 8]


@pytest.mark.parametrize("count", [2, 8])
def test_the_number_of_devices_changes_no_number_of_a_step(eight: dict[str, np.ndarray], count: int):
    """But for the order of the sums: 1e-6 of the largest entry. 8 is more than the last batch has examples for."""
    for name in ("loss", "gradient"):
        found, alone = eight[f"{name} {count}"], eight[f"{name} 1"]
        assert np.abs(found - alone).max() <= 1e-6 * np.abs(alone).max()
        assert np.abs(alone).max() > 0


@pytest.mark.parametrize(
    "name, value, shown",
    [("JAX_NUM_CPU_DEVICES", value, value) for value in ("", "0", "-1", "abc", "2.0", "10000")]
    + [("XLA_FLAGS", f"--xla_dump_to=x {FORCED}={value}", value) for value in ("", "0", "x")],
)
def test_a_number_of_devices_that_is_none_is_refused(name: str, value: str, shown: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"^{name}: '{re.escape(shown)}' CPU devices must be an integer from 1 to 9999$"):
        devices.configure()


def test_a_platform_that_is_not_there_is_told_in_one_line(tmp_path: Path):
    command = [sys.executable, "-m", "experiments", "train", tiny.PAGE, f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, env=os.environ | {"JAX_PLATFORMS": "nosuch"}, cwd=tiny.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: JAX cannot start with JAX_PLATFORMS=nosuch: ")
    assert "'cpu'" in line


def test_devices_are_chosen_from_the_first_one():
    assert devices.chosen(None) == tuple(jax.devices())
    assert devices.chosen(1) == tuple(jax.devices()[:1])
    with pytest.raises(UsageError, match=r"^config.devices=9 must be at most the 2 CPU devices \(.+\) that there are$"):
        devices.chosen(9)


def test_each_process_has_the_same_share(monkeypatch: pytest.MonkeyPatch):
    here = [SimpleNamespace(process_index=index, id=place) for index in range(2) for place in range(3)]
    monkeypatch.setattr(jax, "devices", lambda: here)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert [(device.process_index, device.id) for device in devices.chosen(4)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(UsageError, match=r"^config.devices=3 must be a multiple of the 2 processes$"):
        devices.chosen(3)


def test_devices_are_described():
    gpu = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3")
    assert devices.described([gpu]) == "1 GPU device (NVIDIA H100 80GB HBM3)"
    assert re.fullmatch(r"2 CPU devices \(.+\)", devices.described(jax.devices()))


def test_a_run_is_read_where_jax_computes_in_float64(finished_run: Path):
    text = b"the plot was lovely, but the film was dull"
    expected = run_folder.load(finished_run)
    [said] = predict.predict(expected, [text])
    with jax.enable_x64(True), tiny.fast_compilation():
        run = run_folder.load(finished_run)
        [found] = predict.predict(run, [text])
    jax.tree.map(np.testing.assert_array_equal, run.params, expected.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(run.params)} == {np.dtype(np.float32)}
    assert json.loads(found)["probability"] == pytest.approx(json.loads(said)["probability"], rel=1e-5)
