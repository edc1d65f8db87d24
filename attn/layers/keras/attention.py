"""Keras' attention layers in linen, with the initialisers and epsilons of Keras 2.11.

As in Keras they are called `(query, value, key=None)`: value before key, and key defaults to value. `mask` is that of
`attn.attend`: bool, True means may attend, `[*B, N, T, S]` with each axis full or 1. Where Keras' own masks end in a uniform
row (a query with no key), these give 0.
"""

import jax.numpy as jnp
from flax import linen as nn

from attn.dispatch import attend
from attn.initializers import glorot_uniform, symmetric_uniform
from attn.shapes import Array, Mask, Tokens


class Attention(nn.Module):
    """`keras.layers.Attention` (dot score): softmax(q kᵀ) v without projections and without 1/√d.

    With `use_scale` the scores are multiplied by one trained scalar that starts at 1.
    """

    use_scale: bool = False

    @nn.compact
    def __call__(self, query: Array, value: Array, key: Array | None = None, *, mask: Mask | None = None) -> Array:
        """`[*B, T, D]`, `[*B, S, V]`, `[*B, S, D]` to `[*B, T, V]`."""
        key = value if key is None else key
        scale = self.param("scale", nn.initializers.ones, ()) if self.use_scale else 1.0
        query, key, value = (x[..., None, :] for x in (query, key, value))  # one head
        return attend(query, key, value, mask=mask, scale=scale)[..., 0, :]


class MultiHeadAttention(nn.Module):
    """`keras.layers.MultiHeadAttention`: every head projects to `key_dim` (its size is per head, not divided by heads).

    Parameters are Keras' own, by name and shape: query, key `(D, N, H)`, value `(D, N, V)`, attention_output `(N, V, O)`.
    """

    num_heads: int
    key_dim: int
    value_dim: int | None = None  # None: key_dim
    output_dim: int | None = None  # None: the query's last axis
    use_bias: bool = True

    @nn.compact
    def __call__(self, query: Array, value: Array, key: Array | None = None, *, mask: Mask | None = None) -> Array:
        """`[*B, T, D]`, `[*B, S, D']`, `[*B, S, D'']` to `[*B, T, output_dim]`."""
        key = value if key is None else key
        heads = attend(
            self._heads("query", query, self.key_dim),
            self._heads("key", key, self.key_dim),
            self._heads("value", value, self.value_dim or self.key_dim),
            mask=mask,
        )
        output_dim = self.output_dim or query.shape[-1]
        kernel = (*heads.shape[-2:], output_dim)
        return self._project("attention_output", kernel, "...tnv,nvo->...to")(heads)

    def _heads(self, name: str, x: Array, head_dim: int) -> Array:
        return self._project(name, (x.shape[-1], self.num_heads, head_dim), "...td,dnh->...tnh")(x)

    def _project(self, name: str, shape: tuple[int, ...], einsum: str) -> nn.Einsum:
        return nn.Einsum(shape, einsum, use_bias=self.use_bias, kernel_init=glorot_uniform(), name=name)


class TransformerBlock(nn.Module):
    """The post-norm encoder block of the Keras example "Text classification with Transformer" (A. Nandan, 2020).

    x₁ = LN(x + drop(MHA(x, x))), then LN(x₁ + drop(Dense(relu(Dense(x₁))))), LayerNorm epsilon 1e-6 (not Keras' 1e-3).
    """

    num_heads: int
    key_dim: int
    feedforward_dim: int
    dropout_rate: float = 0.1

    @nn.compact
    def __call__(self, x: Array, *, mask: Mask | None = None, deterministic: bool = True) -> Array:
        """`[*B, T, D]` to the same; the rng named "dropout" is needed unless `deterministic`."""

        def add_and_norm(x: Array, branch: Array) -> Array:
            branch = nn.Dropout(self.dropout_rate, deterministic=deterministic)(branch)
            return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False)(x + branch)

        x = add_and_norm(x, MultiHeadAttention(self.num_heads, self.key_dim)(x, x, mask=mask))
        hidden = nn.relu(nn.Dense(self.feedforward_dim, kernel_init=glorot_uniform())(x))
        return add_and_norm(x, nn.Dense(x.shape[-1], kernel_init=glorot_uniform())(hidden))


class TokenAndPositionEmbedding(nn.Module):
    """Token embeddings, and with `max_length` learned position embeddings added (Keras' example of the same name)."""

    vocabulary_size: int
    embed_dim: int
    max_length: int | None = None  # None: no positions

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
        return nn.Embed(rows, self.embed_dim, embedding_init=symmetric_uniform(), name=name)
