"""Conversion of weights from and to Keras, PyTorch, Flax and d2l, bit for bit, and weight files.

Nothing else in `attn` imports this package. None of the converters imports the other framework: they read the layer that they
are given.
"""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn.parity.d2l import from_d2l
    from attn.parity.files import load_weights, save_weights
    from attn.parity.flax import from_flax, to_flax
    from attn.parity.keras import from_keras, to_keras
    from attn.parity.torch import from_torch, to_torch

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

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "from_d2l": "attn.parity.d2l",
        "from_flax": "attn.parity.flax",
        "from_keras": "attn.parity.keras",
        "from_torch": "attn.parity.torch",
        "load_weights": "attn.parity.files",
        "save_weights": "attn.parity.files",
        "to_flax": "attn.parity.flax",
        "to_keras": "attn.parity.keras",
        "to_torch": "attn.parity.torch",
    },
)
