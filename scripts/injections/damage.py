"""Damaged files of a finished run, and crafted files of arrays."""

import contextlib
import io
import pickle
import random
import time
import zipfile
from pathlib import Path

import numpy as np

from attn import parity
from experiments.data import array_folder, checksum
from experiments.errors import DataError
from experiments.storage import checkpoints
from scripts.injections import short_runs
from scripts.injections.row import Row

HOW = ("truncated", "zeroed", "deleted", "one bit flipped")


def damaged_checkpoints(count: int, seed: int, folder: Path) -> Row:
    """Damages a random file of the newest checkpoint, again and again; the one before must be used, and a line say so."""
    draw, workdir = random.Random(seed), folder / "run"
    short_runs.prepare(folder / "compiled")
    short_runs.undisturbed(workdir)
    files = {kind: sorted(path for path in _newest(workdir, kind).rglob("*") if path.is_file()) for kind in checkpoints.KINDS}
    found, longest, silent = 0, 0.0, 0
    for index in range(count):
        kind = checkpoints.KINDS[index % 2]
        path = files[kind][index // 2 % len(files[kind])]
        content = path.read_bytes()
        _damage(path, content, draw, HOW[index // 2 // len(files[kind]) % len(HOW)])
        started, said = time.monotonic(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.suppress(DataError):
            used = checkpoints.newest(workdir, kind, aside=False)
            silent += used is None or used.step == int(_newest(workdir, kind).name)
        longest = max(longest, time.monotonic() - started)
        found += said.getvalue().startswith(f"warning: checkpoint {kind}/")
        path.write_bytes(content)
    note = f"{silent} used in silence; {len(files['last'])} files; the longest fallback {longest:.2f} s"
    return Row("a damaged checkpoint", "found; the one before is used, and a line says so", count, found - silent, note)


def _newest(workdir: Path, kind: checkpoints.Kind) -> Path:
    return workdir / checkpoints.FOLDER / kind / str(checkpoints.steps_of(workdir, kind)[-1])


def _damage(path: Path, content: bytes, draw: random.Random, how: str) -> None:
    if how == "deleted" or not content:
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: draw.randrange(len(content))])
    elif how == "zeroed" and any(content):
        path.write_bytes(bytes(len(content)))
    else:
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)


class _Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path):
        self._path = path

    def __reduce__(self) -> tuple:
        return Path.write_text, (self._path, "run")


def crafted_arrays(folder: Path) -> Row:
    """Arrays of objects whose unpickling would write a file, in .npy and .npz, with a checksum that fits."""
    folder.mkdir(parents=True)
    marker = folder / "was_run"
    array = np.array([_Payload(marker)], dtype=object)
    refused = []
    for version in ((1, 0), (2, 0), (3, 0)):
        crafted = io.BytesIO()
        with contextlib.suppress(ValueError):
            np.lib.format.write_array(crafted, array, version=version, allow_pickle=True)
        (folder / "train_tokens.npy").write_bytes(crafted.getvalue())
        digest = checksum.file_sha256(folder / "train_tokens.npy")
        (folder / "manifest.json").write_text(f'{{"sha256": {{"train_tokens.npy": "{digest}"}}}}')
        refused.append(_refuses(DataError, lambda: array_folder.open_split(folder, "train")))
        with zipfile.ZipFile(folder / "weights.npz", "w") as archive:
            archive.writestr("kernel.npy", crafted.getvalue())
        refused.append(_refuses(ValueError, lambda: parity.load_weights(folder / "weights.npz")))
    for name in ("train_tokens.npy", "weights.npz"):  # a bare pickle
        (folder / name).write_bytes(pickle.dumps(_Payload(marker)))
    refused.append(_refuses(ValueError, lambda: parity.load_weights(folder / "weights.npz")))
    note = "no code was run" if not marker.exists() else "CODE WAS RUN"
    held = sum(refused) if not marker.exists() else 0
    return Row("a crafted .npy or .npz with objects", "refused in one line, no code runs", len(refused), held, note)


def _refuses(kind: type[Exception], load) -> bool:
    try:
        load()
    except kind as error:
        return "\n" not in str(error)
    return False
