"""Models that are built from the layers."""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn.models import classifier, ngram, seq2seq

__all__ = ["classifier", "ngram", "seq2seq"]
__getattr__, __dir__ = lazy_attributes(__name__, {name: f"attn.models.{name}" for name in __all__})
