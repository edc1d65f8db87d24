"""The two layers of the Keras example "Text classification with Transformer" (A. Nandan, 2020)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike

from attn._validation import check_positive_ints, check_rate
from attn.kernels.selection import Implementation
from attn.layers import flags, initializers
from attn.layers.dense import Dense, Dropout, cast, embed, promoting
from attn.layers.keras.masking import Version
from attn.layers.keras.multi_head import MultiHeadAttention
from attn.positions import Relative
from attn.shapes import Array, Tokens, Valid


class TransformerBlock(flags.WithFlags):
    """A Transformer encoder block with layer normalisation after each residual connection (post-norm).

    x₁ = LayerNorm(x + Dropout(MultiHeadAttention(x, x))), and the output is LayerNorm(x₁ + Dropout(Dense(relu(Dense(x₁))))).
    The epsilon of LayerNorm is 1e-6, as in the example; Keras' default is 1e-3. Source: Vaswani et al. 2017, section 3.1.

    Attributes:
      num_heads: the number of heads.
      key_dim: the channels of each head; the example sets it to the embedding's size.
      feedforward_dim: the size of the hidden layer of the feed-forward network.
      dropout_rate: the rate for the output of both sub-layers; a scalar array is not checked.
      version, initializer: as in `MultiHeadAttention`.
      implementation, block: as in `attn.attend`.
      position: given here or in the call, not in both.
      dtype: the dtype of activations and products; None promotes inputs and parameters. The softmax and the statistics of
        LayerNorm are computed in at least float32, and parameters stay as they are, in any case.

    Raises:
      ValueError: a size that is not a positive int, a rate outside of [0, 1), or an unknown name.
    """

    num_heads: int
    key_dim: int
    feedforward_dim: int
    dropout_rate: float | Array = 0.1
    version: Version | None = None
    initializer: str | None = None
    implementation: Implementation = "auto"
    block: int | tuple[int, int] | None = None
    position: Relative | None = None
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        check_positive_ints(num_heads=self.num_heads, key_dim=self.key_dim, feedforward_dim=self.feedforward_dim)
        if not isinstance(self.dropout_rate, jax.Array):
            self.dropout_rate = check_rate("dropout_rate", self.dropout_rate)
        flags.check_implementation(self.implementation)
        flags.check_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Array,
        value_mask: Valid | None = None,
        *,
        position: Relative | None = None,
        deterministic: flags.Flag | None = None,
    ) -> Array:
        """Applies the block.

        Args:
          x: `[*B, T, D]`.
          value_mask: bool `[*B, T]`; True is a real token, False is padding.
          position: a kind of relative positions; see the call of `MultiHeadAttention`.
          deterministic: False applies dropout, and needs the rng named "dropout". None means the field, or True.

        Returns:
          `[*B, T, D]`.
        """
        off = flags.resolve_deterministic(self, deterministic)
        family = initializers.family(self.initializer or initializers.of_keras(self.version))
        (x,) = cast(self.dtype, x)

        def add_and_norm(x: Array, branch: Array) -> Array:
            branch = Dropout(self.dropout_rate, deterministic=off)(branch)
            norm = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=self.dtype)
            return promoting(norm, promoting(jnp.add, x, branch))

        def dense(x: Array, features: int) -> Array:
            bias_init = family.dense_bias(x.shape[-1])
            return Dense(features, kernel_init=family.dense, bias_init=bias_init, dtype=self.dtype)(x)

        attention = MultiHeadAttention(
            self.num_heads,
            self.key_dim,
            attention_axes=-2,
            version=self.version,
            initializer=self.initializer,
            implementation=self.implementation,
            block=self.block,
            dtype=self.dtype,
        )
        position = flags.resolve(self, "position", position, otherwise=None)
        x = add_and_norm(x, attention(x, x, value_mask=value_mask, position=position))
        return add_and_norm(x, dense(nn.relu(dense(x, self.feedforward_dim)), x.shape[-1]))


class TokenAndPositionEmbedding(nn.Module):
    """Token embeddings plus, with `max_length`, learned position embeddings.

    Attributes:
      vocabulary_size: the number of tokens.
      embed_dim: the size of an embedding.
      max_length: the number of positions; None means no position embeddings.
      initializer: as in `MultiHeadAttention`.
      dtype: the dtype of the output; None means that of the tables, float32. The sum is rounded once, and the gradients of a
        token that occurs many times are summed in float32.

    Raises:
      ValueError: a size that is not a positive int, or a `dtype` that is not floating point.
    """

    vocabulary_size: int
    embed_dim: int
    max_length: int | None = None
    initializer: str | None = None
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        flags.check_dtype(self.dtype)
        sizes = {"vocabulary_size": self.vocabulary_size, "embed_dim": self.embed_dim, "max_length": self.max_length}
        check_positive_ints(**sizes)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: Tokens) -> Array:
        """Tokens `[*B, T]` to `[*B, T, D]`. Raises ValueError where T is more than `max_length`."""
        x = embed(self._table("tokens", self.vocabulary_size), tokens)
        if self.max_length is None:
            return cast(self.dtype, x)[0]
        length = tokens.shape[-1]
        if not is_symbolic_dim(length) and length > self.max_length:
            raise ValueError(f"tokens {tokens.shape} are longer than max_length={self.max_length} positions")
        positions = self._table("positions", self.max_length)(jnp.arange(length))
        return cast(self.dtype, x + positions.reshape((1,) * (x.ndim - 2) + positions.shape))[0]

    @nn.nowrap
    def _table(self, name: str, rows: int) -> nn.Embed:
        family = initializers.family(self.initializer or "keras_2.11")
        return nn.Embed(rows, self.embed_dim, embedding_init=family.embedding, name=name)
