"""Flax linen layers by framework: `keras` (2.11 to 3.15), `d2l` and `d2l_transformer` ("Dive into Deep Learning" 1.0)."""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn.layers import d2l, d2l_transformer, keras

__all__ = ["d2l", "d2l_transformer", "keras"]
__getattr__, __dir__ = lazy_attributes(__name__, {name: f"attn.layers.{name}" for name in __all__})
