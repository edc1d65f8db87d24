"""Weight files: what was saved comes back, and what is damaged or foreign is refused with its path."""

import importlib.util
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_parity_state_dict import E, N, state_dict

from attn import parity
from attn.layers.keras import MultiHeadAttention

pytestmark = pytest.mark.usefixtures("fast_compilation")
needs_safetensors = pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="needs safetensors")
SUFFIXES = [".npz", pytest.param(".safetensors", marks=needs_safetensors)]
RNG = np.random.default_rng(0)
TREE: dict[str, Any] = {
    "params": {
        "query": {"kernel": RNG.normal(size=(2, 3, 4)).astype(np.float32), "bias": np.array([-0.0, np.nan, np.inf])},
        "file": np.float32(3),  # a keyword of np.savez
        "half": np.arange(5, dtype=np.float16),
        "none": np.zeros((0, 3)),
    },
    "in_proj.weight": np.asfortranarray(RNG.normal(size=(2, 3))),
    "steps": np.arange(3),
    "swapped": np.arange(6.0).reshape(2, 3).T,
}


def same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == np.asarray(b).tobytes()  # of both in C order


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_saved_comes_back(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"of before")
    parity.save_weights(path, TREE)
    same_bits(parity.load_weights(str(path)), TREE)
    parity.save_weights(path, {})
    assert parity.load_weights(path) == {}
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


@needs_safetensors
def test_bfloat16(tmp_path):
    tree = {"query": {"kernel": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)}}
    parity.save_weights(tmp_path / "weights.safetensors", tree)
    same_bits(parity.load_weights(tmp_path / "weights.safetensors"), tree)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_state_dict_needs_no_pytorch(tmp_path, suffix):
    path = tmp_path / f"attention{suffix}"
    parity.save_weights(path, state_dict())
    weights = parity.load_weights(path)
    assert weights.keys() == state_dict().keys()
    same_bits(parity.from_torch(weights, num_heads=N)[1], parity.from_torch(state_dict(), num_heads=N)[1])


def test_the_file_of_another_library_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **{"query/kernel": np.ones((2, 3)), "bias": np.zeros(2)})
    same_bits(parity.load_weights(tmp_path / "a.npz"), {"query": {"kernel": np.ones((2, 3))}, "bias": np.zeros(2)})
    parity.save_weights(tmp_path / "b.npz", TREE)
    with np.load(tmp_path / "b.npz") as file:
        np.testing.assert_array_equal(file["params/query/kernel"], TREE["params"]["query"]["kernel"])


def test_a_files_layer_is_the_layer(tmp_path):
    layer = MultiHeadAttention(N, E // N)
    x = jnp.ones((5, E))
    params = layer.init(jax.random.key(0), x, x)
    parity.save_weights(tmp_path / "layer.npz", params)
    np.testing.assert_array_equal(layer.apply(parity.load_weights(tmp_path / "layer.npz"), x, x), layer.apply(params, x, x))


@needs_safetensors
def test_pytorchs_own_safetensors(torch, tmp_path):
    module = torch.nn.MultiheadAttention(E, N, dtype=torch.bfloat16)
    importlib.import_module("safetensors.torch").save_file(module.state_dict(), tmp_path / "attention.safetensors")
    _, params = parity.from_torch(parity.load_weights(tmp_path / "attention.safetensors"), num_heads=N)
    same_bits(params, parity.from_torch(module)[1])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"weights{suffix}"
    parity.save_weights(path, TREE)

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        parity.save_weights(path, {"other": np.ones(3)})
    same_bits(parity.load_weights(path), TREE)
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_short_is_refused_at_every_length(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    parity.save_weights(path, TREE)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"weights{suffix} is not a {suffix} file of arrays: \S.*\Z") as caught:
            parity.load_weights(path)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    parity.save_weights(path, TREE)
    damaged = bytearray(path.read_bytes())
    at = damaged.index(TREE["params"]["query"]["kernel"].tobytes()) + 5
    damaged[at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"weights.npz is not a .npz file of arrays: Bad CRC-32"):
        parity.load_weights(path)


class Bomb:
    """A pickle of it calls a function when it is opened."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was opened",)


def archive(path, *members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            file.writestr(name, content)


def npy(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, ("a.npy", "1"), ("a.npy", "2"))


def huge(path):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    archive(path, ("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()))


FOREIGN: dict[str, tuple[Callable[[Path], Any], str]] = {  # what somebody might have called a .npz
    "pickled": (
        lambda path: np.savez(path, a=np.array([Bomb()], dtype=object)),
        "Object arrays cannot be loaded when allow_pickle=False",
    ),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Bomb())), "File is not a zip file"),
    "npy": (npy, "File is not a zip file"),
    "text": (lambda path: path.write_text("a,b\n1,2\n"), "File is not a zip file"),
    "member": (lambda path: archive(path, ("a.txt", "text")), "a.txt is not an array"),
    "words": (lambda path: np.savez(path, a=np.array(["text"])), "a has dtype <U4, which .npz cannot hold"),
    "both": (
        lambda path: np.savez(path, **{"a": np.ones(2), "a/b": np.ones(2)}),
        "a/b is an array, and so is a prefix of its name",
    ),
    "bytes": (lambda path: np.savez(path, a=np.ones(3, jnp.bfloat16)), r"a has dtype \|V2, which .npz cannot hold"),
    "twice": (twice, "two arrays have the same name"),
    "huge": (huge, ""),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused(tmp_path, name):
    write, message = FOREIGN[name]
    path = tmp_path / f"{name}.npz"
    write(path)
    with pytest.raises(ValueError, match=f"{name}.npz is not a .npz file of arrays: {message}"):
        parity.load_weights(path)


UNSAVED = [
    ({"a/b": np.ones(2)}, "'a/b' is not a parameter name: it must be a str without '/'"),
    ({"a": {0: np.ones(2)}}, "a/0 is not a parameter name"),
    ({"a": {"b": {}}}, "a/b is an empty dict: it must hold arrays"),
    ({"a": [1.0, 2.0]}, "a is a list, not an array"),
    ([np.ones(2)], "params is a list, not a dict of arrays"),
    ({"a": np.array(["text"])}, "a has dtype <U4, which .npz cannot hold"),
    ({"a": jnp.ones(2, jnp.bfloat16)}, "a has dtype bfloat16, which .npz cannot hold"),
]


@pytest.mark.parametrize("tree, message", UNSAVED, ids=[message[:25] for _, message in UNSAVED])
def test_what_would_not_come_back_is_not_written(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        parity.save_weights(tmp_path / "weights.npz", tree)
    assert not list(tmp_path.iterdir())


def test_paths(tmp_path):
    for call in (parity.load_weights, lambda path: parity.save_weights(path, {})):
        with pytest.raises(ValueError, match=r"path='.*weights.pt' must end in .npz or .safetensors"):
            call(tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError):
        parity.load_weights(tmp_path / "weights.npz")
    with pytest.raises(FileNotFoundError):
        parity.save_weights(tmp_path / "absent" / "weights.npz", TREE)


def test_without_safetensors_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    for call in (parity.load_weights, lambda path: parity.save_weights(path, {})):
        with pytest.raises(ImportError, match="pip install safetensors"):
            call(path)
