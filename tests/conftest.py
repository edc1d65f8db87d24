"""Fixtures that several test files share: the peers, the real IMDB archive, where the machine has one, and a finished run."""

import os
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny

from experiments.data import imdb

NEEDS_PEERS = "needs the extra peers: make test EXTRAS=peers"

jax.config.update("jax_num_cpu_devices", 2)  # the steps are tested on one device and on two


@pytest.fixture(scope="module")
def fast_compilation():
    """For tests of what is computed on many small programs: XLA spends its time on how well instead."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    return pytest.importorskip("keras", reason=NEEDS_PEERS)


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch", reason=NEEDS_PEERS)


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """The archive that ATTN_IMDB_ARCHIVE names. The reviews are their authors', so none of them is in this repository."""
    path = os.environ.get("ATTN_IMDB_ARCHIVE")
    if not path:
        pytest.skip("ATTN_IMDB_ARCHIVE is not set: it names an archive with the layout of aclImdb_v1.tar.gz")
    return Path(path)


@pytest.fixture(scope="session")
def imdb_data_dir(real_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in which the real archive is prepared, once a session."""
    data_dir = tmp_path_factory.mktemp("imdb")
    imdb.prepare(real_archive, data_dir)
    return data_dir


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that `train` has finished. Not to be written to: copy it."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.train(monkeypatch, workdir)
    return workdir
