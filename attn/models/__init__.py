"""Models that are built from the layers."""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn.models import bodies, classifier, ngram, seq2seq, two_sequences

__all__ = ["bodies", "classifier", "ngram", "seq2seq", "two_sequences"]
__getattr__, __dir__ = lazy_attributes(__name__, {name: f"attn.models.{name}" for name in __all__})
