"""The Transformer encoder of "Dive into Deep Learning" (d2l 1.0, sections 11.6.3 and 11.7) in linen.

Parameters have the names and shapes of the book's JAX version. `valid_lens` and `deterministic` are those of
`attn.layers.d2l`; the rng named "dropout" is needed unless `deterministic`.
"""

import math

from flax import linen as nn

from attn.layers.d2l import MultiHeadAttention, WithDropout
from attn.layers.dense import Dropout
from attn.positions import sinusoidal
from attn.shapes import Array, Tokens


class PositionalEncoding(WithDropout):
    """Dropout(X + P[: T]), where P[i, 2j] is sin(i / 10000^(2j / num_hiddens)) and P[i, 2j + 1] its cosine (11.6.3).

    Raises ValueError where `num_hiddens` is odd, at construction.
    """

    num_hiddens: int
    dropout: float
    max_len: int = 1000

    def __post_init__(self) -> None:
        if self.num_hiddens < 2 or self.num_hiddens % 2:
            raise ValueError(f"num_hiddens={self.num_hiddens} is not positive and even: each sine has its cosine")
        super().__post_init__()

    @nn.compact
    def __call__(self, X: Array, *, deterministic: bool = True) -> Array:  # noqa: N803 the book's name
        """`[B, T, num_hiddens]` to the same. Raises ValueError for another last axis, or T above `max_len`."""
        if X.shape[-1] != self.num_hiddens:
            raise ValueError(f"num_hiddens={self.num_hiddens} is not the last axis of {X.shape}")
        if (length := X.shape[-2]) > self.max_len:
            raise ValueError(f"X {X.shape} is longer than max_len={self.max_len} positions")
        placed = (X + sinusoidal(length, self.num_hiddens, interleaved=True)).astype(X.dtype)
        return Dropout(self.dropout, deterministic)(placed)


class AddNorm(WithDropout):
    """LayerNorm(X + Dropout(Y)) over the last axis (11.7.3). Its epsilon is Flax's 1e-6, where the torch version has 1e-5."""

    dropout: float

    @nn.compact
    def __call__(self, X: Array, Y: Array, *, deterministic: bool = True) -> Array:  # noqa: N803 the book's names
        """Two arrays of one shape to the same. Raises ValueError where the shapes differ."""
        if X.shape != Y.shape:
            raise ValueError(f"X {X.shape} and Y {Y.shape} differ: a residual connection needs one shape")
        dropped = Dropout(self.dropout, deterministic)(Y)
        return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False)(X + dropped)


class PositionWiseFFN(nn.Module):
    """dense2(relu(dense1(X))), the same at every position (11.7.2)."""

    ffn_num_hiddens: int
    ffn_num_outputs: int

    def setup(self) -> None:
        self.dense1 = nn.Dense(self.ffn_num_hiddens)
        self.dense2 = nn.Dense(self.ffn_num_outputs)

    def __call__(self, X: Array) -> Array:  # noqa: N803 the book's name
        """`[B, T, D]` to `[B, T, ffn_num_outputs]`."""
        return self.dense2(nn.relu(self.dense1(X)))


class TransformerEncoderBlock(nn.Module):
    """Self-attention, then a position-wise network, each followed by `AddNorm` (11.7.4); `use_bias` is the attention's.

    Raises ValueError at construction where `num_heads` does not divide `num_hiddens`.
    """

    num_hiddens: int
    ffn_num_hiddens: int
    num_heads: int
    dropout: float
    use_bias: bool = False

    def __post_init__(self) -> None:
        MultiHeadAttention(self.num_hiddens, self.num_heads, self.dropout, parent=None)  # `setup` would refuse later
        super().__post_init__()

    def setup(self) -> None:
        self.attention = MultiHeadAttention(self.num_hiddens, self.num_heads, self.dropout, self.use_bias)
        self.addnorm1 = AddNorm(self.dropout)
        self.ffn = PositionWiseFFN(self.ffn_num_hiddens, self.num_hiddens)
        self.addnorm2 = AddNorm(self.dropout)

    def __call__(self, X: Array, valid_lens: Array | None = None, *, deterministic: bool = True) -> Array:  # noqa: N803
        """`[B, T, num_hiddens]` to the same."""
        attended = self.attention(X, X, X, valid_lens, deterministic=deterministic)
        Y = self.addnorm1(X, attended, deterministic=deterministic)
        return self.addnorm2(Y, self.ffn(Y), deterministic=deterministic)


class TransformerEncoder(nn.Module):
    """Embeddings times √num_hiddens plus `PositionalEncoding`, then `num_blks` blocks (11.7.4).

    Raises ValueError at construction where `num_hiddens` is odd, or `num_heads` does not divide it.
    """

    vocab_size: int
    num_hiddens: int
    ffn_num_hiddens: int
    num_heads: int
    num_blks: int
    dropout: float
    use_bias: bool = False

    def __post_init__(self) -> None:
        PositionalEncoding(self.num_hiddens, self.dropout, parent=None)  # `setup` would refuse later
        TransformerEncoderBlock(self.num_hiddens, self.ffn_num_hiddens, self.num_heads, self.dropout, parent=None)
        super().__post_init__()

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.num_hiddens)
        self.pos_encoding = PositionalEncoding(self.num_hiddens, self.dropout)
        self.blks = [
            TransformerEncoderBlock(self.num_hiddens, self.ffn_num_hiddens, self.num_heads, self.dropout, self.use_bias)
            for _ in range(self.num_blks)
        ]

    def __call__(self, tokens: Tokens, valid_lens: Array | None = None, *, deterministic: bool = True) -> Array:
        """`[B, T]` to `[B, T, num_hiddens]`. Raises ValueError where T is above 1000."""
        X = self.pos_encoding(self.embedding(tokens) * math.sqrt(self.num_hiddens), deterministic=deterministic)
        for blk in self.blks:
            X = blk(X, valid_lens, deterministic=deterministic)
        return X
