"""Short runs that are killed at random moments end as the run that was never killed; `scripts/faults.py` does more of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from conftest import once


def inject(folder: Path, kills: int, seed: int) -> dict:
    """Kills runs in processes that are forked after the imports. Returns the row of the table of faults."""
    command = [sys.executable, str(tiny.ROOT / "scripts" / "faults.py"), f"--folder={folder}", "--only=SIGKILL", "--child"]
    done = subprocess.run([*command, f"--count={kills}", f"--seed={seed}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run that is never killed."""
    return once(tmp_path_factory, "kills", lambda folder: inject(folder, 0, 0))


@pytest.mark.parametrize("seed", range(20))
def test_kills(seed: int, undisturbed: Path):
    """20 SIGKILLs in all, at least."""
    row = inject(undisturbed, 1, seed)
    assert row["injected"] == row["held"] >= 1, row
