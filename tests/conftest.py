"""Fixtures that several test files share: the peers, the real IMDB archive, where the machine has one, and a finished run."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
import tiny

from experiments.data import imdb, imdb_archive

pytest_plugins = ["slow_tests"]

NEEDS_PEERS = "needs the extra peers: make test EXTRAS=peers"

# The suite compiles about two thousand small programs once each. Without the fusion emitters, which lower each fusion
# through MLIR, XLA compiles them four times as fast; splitting a module for parallel code generation costs more than it
# gains here. Set `XLA_FLAGS` to override; XLA reads it when the first backend starts, and child processes inherit it.
FAST_COMPILATION = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # jaxlib 0.12 no longer knows the first flag, and XLA aborts on a flag that it does not know
    os.environ.setdefault("XLA_FLAGS", FAST_COMPILATION)
os.environ["JAX_NUM_CPU_DEVICES"] = "2"  # the steps are tested on one device and on two
jax.config.update("jax_num_cpu_devices", 2)


def pytest_configure(config: pytest.Config) -> None:
    """Keeps compiled programs in pytest's cache, for the other workers, the processes that tests start and the next session.

    `pytest --cache-clear` removes them. Small programs are kept too: writing one takes about a millisecond.
    """
    if not config.pluginmanager.has_plugin("cacheprovider"):
        return
    folder = config.cache.mkdir("compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects the tests marked "browser" where there is no Chromium: $CHROMIUM, or `chromium` on the path.

    They are not skipped, because CI takes a skipped test for a missing extra, and a browser is none that pip could install.
    """
    if os.environ.get("CHROMIUM") or shutil.which("chromium"):
        return
    without = [item for item in items if item.get_closest_marker("browser") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in without])
    items[:] = without


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once a session, whichever worker of xdist comes first; the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released where the file is closed
        if not folder.exists():
            staging = folder.with_suffix(".part")
            make(staging)
            staging.rename(folder)  # only a complete folder has the name
    return folder


@pytest.fixture(scope="module")
def fast_compilation():
    with tiny.fast_compilation():
        yield


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
def real_content(real_archive: Path) -> imdb_archive.Archive:
    """What the real archive holds, read once."""
    return imdb_archive.read_archive(real_archive)


@pytest.fixture(scope="session")
def imdb_data_dir(real_archive: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A data directory in which the real archive is prepared, once a session."""

    def prepare(data_dir: Path) -> None:
        content = request.getfixturevalue("real_content")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(imdb_archive, "read_archive", lambda *_: content)  # not a second time
            imdb.prepare(real_archive, data_dir)

    return once(tmp_path_factory, "imdb", prepare)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run that `train` has finished, once a session. Not to be written to: copy it."""

    def train(workdir: Path) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            tiny.train(monkeypatch, workdir, drawn=True)

    return once(tmp_path_factory, "finished_run", train)
