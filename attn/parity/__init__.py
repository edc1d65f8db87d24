"""Weights in and out of Keras, PyTorch, Flax and d2l, bit for bit, and weight files.

An outer room: nothing in `attn` imports it, and it imports a framework only for a function of that framework.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attn.parity.d2l import from_d2l
    from attn.parity.files import load_weights, save_weights
    from attn.parity.flax import from_flax, to_flax
    from attn.parity.keras import from_keras, to_keras
    from attn.parity.torch import from_torch, to_torch

_HOMES = {
    "from_d2l": "attn.parity.d2l",
    "from_flax": "attn.parity.flax",
    "from_keras": "attn.parity.keras",
    "from_torch": "attn.parity.torch",
    "load_weights": "attn.parity.files",
    "save_weights": "attn.parity.files",
    "to_flax": "attn.parity.flax",
    "to_keras": "attn.parity.keras",
    "to_torch": "attn.parity.torch",
}
__all__ = [
    "from_d2l",
    "from_flax",
    "from_keras",
    "from_torch",
    "load_weights",
    "save_weights",
    "to_flax",
    "to_keras",
    "to_torch",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'attn.parity' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
