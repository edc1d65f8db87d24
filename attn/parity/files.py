"""Weight files, `.npz` (NumPy) and `.safetensors`: named arrays only, so that opening one never executes code."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from attn.parity.trees import as_array, flatten, unflatten

_SUFFIXES = (".npz", ".safetensors")


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file that `save_weights` or another library wrote.

    Args:
      path: ends in `.npz` or `.safetensors`.

    Returns:
      The arrays by name, in their own dtype. Names with "/" become a tree of dicts, as `save_weights` was given; other names,
      such as those of a PyTorch `state_dict`, stay as they are.

    Raises:
      ValueError: one line with the path, for another suffix, a damaged file, a file of another format, and a file with
        anything but arrays of numbers. A pickle inside of an `.npz` is not opened.
      OSError: the file cannot be opened.
      ImportError: the file is `.safetensors`, and the package safetensors is not installed.

    Example:
      >>> attn.parity.save_weights("weights.npz", {"query": {"kernel": np.ones((2, 3))}})
      >>> attn.parity.load_weights("weights.npz")["query"]["kernel"].shape
      (2, 3)
    """
    path, suffix = _path_and_suffix(path)
    read = _read_npz if suffix == ".npz" else _safetensors().load_file
    with path.open("rb"):  # a path that cannot be opened raises OSError; below, every error means a damaged file
        pass
    try:
        arrays = read(path)
        for name, array in arrays.items():
            _check_numbers(name, array, suffix)
        return unflatten(arrays)
    except Exception as error:  # zlib, struct, zipfile, NumPy and safetensors each raise their own for a damaged file
        raise ValueError(f"{path} is not a {suffix} file of arrays: {_first_line(error)}") from error


def save_weights(path: str | os.PathLike[str], params: Any) -> None:
    """Writes a tree of arrays to a file, with the names joined by "/". An existing file is replaced only on success.

    Args:
      path: ends in `.npz` or `.safetensors`.
      params: nested dicts of arrays of JAX, NumPy or PyTorch: bool, integers or floats of at most 64 bits; bfloat16 in
        `.safetensors` only.

    Raises:
      ValueError: one line, for another suffix, a name with "/", an empty dict inside of the tree, and a dtype that the file
        cannot hold.
      OSError: the file cannot be written.
      ImportError: the path ends in `.safetensors`, and the package safetensors is not installed.
    """
    path, suffix = _path_and_suffix(path)
    write = _write_npz if suffix == ".npz" else _safetensors().save_file
    arrays = {name: as_array(name, leaf) for name, leaf in flatten(params).items()}
    for name, array in arrays.items():
        _check_numbers(name, array, suffix)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(arrays, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # otherwise a power failure could leave the new name without the new bytes
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _path_and_suffix(path: str | os.PathLike[str]) -> tuple[Path, str]:
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"path={str(path)!r} must end in {' or '.join(_SUFFIXES)}")
    return path, path.suffix


def _check_numbers(name: str, array: Any, suffix: str) -> None:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is not an array")
    dtype = array.dtype
    is_number = dtype.kind in "biuf" and dtype.itemsize <= 8
    if not is_number and (dtype.name != "bfloat16" or suffix == ".npz"):  # NumPy would write bfloat16 as raw bytes
        raise ValueError(f"{name} has dtype {dtype}, which {suffix} cannot hold")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise ValueError("two arrays have the same name")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _write_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # np.savez takes the names as keywords, and reserves some of them
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _safetensors() -> Any:
    try:
        from safetensors import numpy as safetensors
    except ImportError:
        raise ImportError("a .safetensors file needs the package safetensors: pip install safetensors") from None
    return safetensors


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
