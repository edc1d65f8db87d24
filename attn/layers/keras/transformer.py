"""The two layers of the Keras example "Text classification with Transformer" (A. Nandan, 2020)."""

import jax.numpy as jnp
from flax import linen as nn

from attn._validation import check_positive_ints
from attn.layers import initializers
from attn.layers.dense import Dense, Dropout
from attn.layers.keras.masking import Version
from attn.layers.keras.multi_head import MultiHeadAttention
from attn.positions import Relative
from attn.shapes import Array, Tokens, Valid


class TransformerBlock(nn.Module):
    """A post-norm encoder block.

    x₁ = LN(x + drop(MHA(x, x))), then LN(x₁ + drop(Dense(relu(Dense(x₁))))), LayerNorm epsilon 1e-6 (not Keras' 1e-3).
    """

    num_heads: int
    key_dim: int  # of each head; the example has the embedding's whole size
    feedforward_dim: int
    dropout_rate: float = 0.1
    version: Version | None = None
    initializer: str | None = None  # as of MultiHeadAttention

    def __post_init__(self) -> None:
        check_positive_ints(num_heads=self.num_heads, key_dim=self.key_dim, feedforward_dim=self.feedforward_dim)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Array, *, value_mask: Valid | None = None, position: Relative | None = None, deterministic: bool = True
    ) -> Array:
        """`[*B, T, D]` to the same. `value_mask` `[*B, T]` are real tokens; "dropout" is needed unless `deterministic`."""
        family = initializers.family(self.initializer or initializers.of_keras(self.version))

        def add_and_norm(x: Array, branch: Array) -> Array:
            branch = Dropout(self.dropout_rate, deterministic=deterministic)(branch)
            return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False)(x + branch)

        def dense(x: Array, features: int) -> Array:
            return Dense(features, kernel_init=family.dense, bias_init=family.dense_bias(x.shape[-1]))(x)

        attention = MultiHeadAttention(
            self.num_heads, self.key_dim, attention_axes=-2, version=self.version, initializer=self.initializer
        )
        x = add_and_norm(x, attention(x, x, value_mask=value_mask, position=position))
        return add_and_norm(x, dense(nn.relu(dense(x, self.feedforward_dim)), x.shape[-1]))


class TokenAndPositionEmbedding(nn.Module):
    """Token embeddings, and with `max_length` learned position embeddings added."""

    vocabulary_size: int
    embed_dim: int
    max_length: int | None = None  # None: no positions
    initializer: str | None = None  # as of MultiHeadAttention

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        """`[*B, T]` to `[*B, T, D]`. Raises ValueError where T is more than `max_length`."""
        x = self._table("tokens", self.vocabulary_size)(tokens)
        if self.max_length is None:
            return x
        length = tokens.shape[-1]
        if length > self.max_length:
            raise ValueError(f"tokens {tokens.shape} are longer than max_length={self.max_length} positions")
        return x + self._table("positions", self.max_length)(jnp.arange(length))

    def _table(self, name: str, rows: int) -> nn.Embed:
        family = initializers.family(self.initializer or "keras_2.11")
        return nn.Embed(rows, self.embed_dim, embedding_init=family.embedding, name=name)
