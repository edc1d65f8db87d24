"""Attention in JAX: one operator for any score function, and layers and models that are built on it.

Arrays in, arrays out: nothing in this package reads files or prints. Submodules are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attn import layers, mask_mods, models, normalizers, parity, positions, score_mods, scores
    from attn.attention import attend, attend_pooled, attention_weights, explain
    from attn.optimizers import keras_adam
    from attn.statistics import attention_statistics, merge_attention

__version__ = "0.1.0"

_FUNCTIONS = {
    "attend": "attn.attention",
    "attend_pooled": "attn.attention",
    "attention_statistics": "attn.statistics",
    "attention_weights": "attn.attention",
    "explain": "attn.attention",
    "keras_adam": "attn.optimizers",
    "merge_attention": "attn.statistics",
}
__all__ = [
    "__version__",
    "attend",
    "attend_pooled",
    "attention_statistics",
    "attention_weights",
    "explain",
    "keras_adam",
    "layers",
    "mask_mods",
    "merge_attention",
    "models",
    "normalizers",
    "parity",
    "positions",
    "score_mods",
    "scores",
]


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    if name in __all__:
        return importlib.import_module(f"attn.{name}")
    raise AttributeError(f"module 'attn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
