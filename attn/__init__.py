"""Attention in JAX: one operator for any score function, and layers and models that are built on it.

Arrays in, arrays out: nothing in this package prints, and only `attn.parity` and `attn.viewer` open files. Submodules are
imported when they are first used.
"""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn import layers, mask_mods, models, normalizers, parity, positions, score_mods, scores, viewer
    from attn.attention import attend, attend_pooled, attention_weights, explain
    from attn.merging import attend_with_lse, merge_attention
    from attn.optimizers import keras_adam
    from attn.statistics import attention_statistics

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "attend",
    "attend_pooled",
    "attend_with_lse",
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
    "viewer",
]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "attend": "attn.attention",
        "attend_pooled": "attn.attention",
        "attend_with_lse": "attn.merging",
        "attention_statistics": "attn.statistics",
        "attention_weights": "attn.attention",
        "explain": "attn.attention",
        "keras_adam": "attn.optimizers",
        "layers": "attn.layers",
        "mask_mods": "attn.mask_mods",
        "merge_attention": "attn.merging",
        "models": "attn.models",
        "normalizers": "attn.normalizers",
        "parity": "attn.parity",
        "positions": "attn.positions",
        "score_mods": "attn.score_mods",
        "scores": "attn.scores",
        "viewer": "attn.viewer",
    },
)
