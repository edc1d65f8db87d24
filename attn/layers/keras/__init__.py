"""Keras' attention layers in linen, each with the exact semantics of one version of Keras on request.

As in Keras, the layers are called as `(query, value, key=None)`: value comes before key, and key defaults to value. Masks are
bool, and True means may attend. Without `version` the layers keep the contract of `attn.attend`: a query that may attend to no
key gets 0, and NaN or Inf in a masked key or value does not reach the output. With `version="2.11"` or `version="3.15"` they
give what that version of Keras gives in these cases, and start from its initialisers.

There is no flag `return_attention_scores`, because it would change the type of what is returned. The weights are
`layer.apply(params, query, value, method="attention_scores")`.
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
