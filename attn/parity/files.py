"""Weight files: `.npz` (NumPy) and `.safetensors`, arrays by name and nothing that runs."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from attn.parity.trees import as_array, flatten, unflatten

_SUFFIXES = (".npz", ".safetensors")


def load_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arrays of a file by name, in their dtype; names with "/" become a tree, others ("in_proj_weight") stay flat.

    So it is what `save_weights` was given, or the state_dict that another library wrote.

    Raises:
      ValueError: one line with the path, for another suffix, a damaged or foreign file, and anything in it that is no array
        of numbers: a pickle in an `.npz` is not opened.
      ImportError: `.safetensors` without the package of that name.
    """
    path, suffix = _checked(path)
    read = _read_npz if suffix == ".npz" else _safetensors().load_file
    with path.open("rb"):  # what the system says of a path stays an OSError, and of a broken file not
        pass
    try:
        arrays = read(path)
        for name, array in arrays.items():
            _check_numbers(name, array, suffix)
        return unflatten(arrays)
    except Exception as error:  # zlib, struct, zipfile, NumPy and safetensors have one each for a broken file
        raise ValueError(f"{path} is not a {suffix} file of arrays: {_first_line(error)}") from error


def save_weights(path: str | os.PathLike[str], params: Any) -> None:
    """Writes a tree of arrays (JAX, NumPy or PyTorch), names joined by "/", whole or not at all.

    Raises:
      ValueError: one line, for another suffix, a name with "/", an empty dict inside, and a dtype that the file cannot hold:
        it holds bool, integers and floats, `.safetensors` bfloat16 too.
      ImportError: `.safetensors` without the package of that name.
    """
    path, suffix = _checked(path)
    write = _write_npz if suffix == ".npz" else _safetensors().save_file
    arrays = {name: as_array(name, leaf) for name, leaf in flatten(params).items()}
    for name, array in arrays.items():
        _check_numbers(name, array, suffix)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(arrays, part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with the old bytes of the disk
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _checked(path: str | os.PathLike[str]) -> tuple[Path, str]:
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"path={str(path)!r} ends in none of {', '.join(_SUFFIXES)}")
    return path, path.suffix


def _check_numbers(name: str, array: Any, suffix: str) -> None:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is no array")
    dtype = array.dtype
    plain = dtype.kind in "biuf" and dtype.itemsize <= 8
    if not plain and (dtype.name != "bfloat16" or suffix == ".npz"):  # which NumPy would write as two bytes of anything
        raise ValueError(f"{name} has dtype {dtype}, which {suffix} cannot hold")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise ValueError("two arrays have one name")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _write_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # np.savez takes arrays as keywords, and some names are its own
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _safetensors() -> Any:
    try:
        from safetensors import numpy as safetensors
    except ImportError:
        raise ImportError("a .safetensors file needs the package of that name: pip install safetensors") from None
    return safetensors


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
