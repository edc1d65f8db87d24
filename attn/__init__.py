"""Attention in JAX: kernels that take and give arrays, and the linen layers and models on top of them."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attn.dispatch import attend, attention_weights
    from attn.optimizers import keras_adam

__version__ = "0.1.0"

_HOMES = {"attend": "attn.dispatch", "attention_weights": "attn.dispatch", "keras_adam": "attn.optimizers"}
__all__ = ["__version__", "attend", "attention_weights", "keras_adam"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'attn' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
