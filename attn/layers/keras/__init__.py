"""Keras' attention layers in linen, each with the exact semantics of its version.

As in Keras they are called `(query, value, key=None)`: value before key, and key defaults to value. Masks are bool, and True
means may attend. A query that may attend to no key gets 0, and NaN under a mask stays there: the contract of `attn.attend`.
Where a version of Keras gives something else, `version="2.11"` or `"3.15"` gives that, and its initialisers.

Weights on request are `layer.apply(params, query, value, method="attention_scores")`, since a flag that changes what is
returned changes every caller.
"""

from attn.layers.keras.attention import AdditiveAttention, Attention
from attn.layers.keras.multi_head import GroupQueryAttention, MultiHeadAttention
from attn.layers.keras.transformer import TokenAndPositionEmbedding, TransformerBlock

__all__ = [
    "AdditiveAttention",
    "Attention",
    "GroupQueryAttention",
    "MultiHeadAttention",
    "TokenAndPositionEmbedding",
    "TransformerBlock",
]
