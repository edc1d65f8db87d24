"""Flax linen layers by framework: `keras` (2.11 to 3.15), `d2l` and `d2l_transformer` ("Dive into Deep Learning" 1.0)."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attn.layers import d2l, d2l_transformer, keras

__all__ = ["d2l", "d2l_transformer", "keras"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'attn.layers' has no attribute {name!r}")
    return importlib.import_module(f"attn.layers.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
