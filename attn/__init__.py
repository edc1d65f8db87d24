"""Attention in JAX: one operator for any score, layers and models on top of it. Arrays in, arrays out."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attn import mask_mods, parity, positions, score_mods, scores
    from attn.dispatch import attend, attend_pooled, attention_weights, explain
    from attn.optimizers import keras_adam
    from attn.statistics import attention_statistics, merge_attention

__version__ = "0.1.0"

_HOMES = {
    "attend": "attn.dispatch",
    "attend_pooled": "attn.dispatch",
    "attention_weights": "attn.dispatch",
    "explain": "attn.dispatch",
    "attention_statistics": "attn.statistics",
    "merge_attention": "attn.statistics",
    "keras_adam": "attn.optimizers",
}
_MODULES = ("mask_mods", "parity", "positions", "score_mods", "scores")
__all__ = [
    "__version__",
    "attend",
    "attend_pooled",
    "attention_statistics",
    "attention_weights",
    "explain",
    "keras_adam",
    "mask_mods",
    "merge_attention",
    "parity",
    "positions",
    "score_mods",
    "scores",
]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"attn.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'attn' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
