"""The Transformer encoder of "Dive into Deep Learning" (d2l 1.0, sections 11.6.3 and 11.7) in linen.

The parameters have the names and shapes of the book's JAX version. `valid_lens`, `deterministic`, `implementation` and `block`
are as in `attn.layers.d2l`.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike

from attn._dtypes import at_least_float32
from attn._validation import check_positive_ints
from attn.layers import flags
from attn.layers.d2l import MultiHeadAttention, WithAttention, WithDropout
from attn.layers.dense import Dropout, cast, embed, promote_product, promoting
from attn.positions import sinusoidal
from attn.shapes import Array, Tokens


class PositionalEncoding(WithDropout):
    """Adds sinusoidal position encodings: Dropout(X + P[:T]).

    P[i, 2j] = sin(i / 10000^(2j / num_hiddens)), and P[i, 2j + 1] is the cosine of the same angle. Source: d2l 1.0, section
    11.6.3; Vaswani et al. 2017, section 3.5.

    Attributes:
      num_hiddens: the size of the inputs; even.
      dropout: the rate for the sum.
      max_len: the largest length T that a call accepts.

    Raises:
      ValueError: at construction, where `num_hiddens` is not positive and even or `dropout` is not a rate.
    """

    num_hiddens: int
    dropout: float
    max_len: int = 1000

    def __post_init__(self) -> None:
        if self.num_hiddens < 2 or self.num_hiddens % 2:
            raise ValueError(f"num_hiddens={self.num_hiddens} is not positive and even: each sine is paired with a cosine")
        super().__post_init__()

    @nn.compact
    def __call__(self, X: Array, *, deterministic: flags.Flag | None = None) -> Array:  # noqa: N803 the book's name
        """`[B, T, num_hiddens]` to the same shape. Raises ValueError for another last axis, and for T above `max_len`."""
        if X.shape[-1] != self.num_hiddens:
            raise ValueError(f"num_hiddens={self.num_hiddens} is not the last axis of {X.shape}")
        length = X.shape[-2]
        if is_symbolic_dim(length):
            table = jnp.take(sinusoidal(self.max_len, self.num_hiddens, interleaved=True), jnp.arange(length), axis=0)
        elif length > self.max_len:
            raise ValueError(f"X {X.shape} is longer than max_len={self.max_len} positions")
        else:
            table = sinusoidal(length, self.num_hiddens, interleaved=True)
        encoded = X.astype(at_least_float32(X.dtype)) + table.reshape((1,) * (X.ndim - 2) + table.shape)
        return Dropout(self.dropout, flags.resolve_deterministic(self, deterministic))(
            encoded.astype(X.dtype if self.dtype is None else self.dtype)
        )


class AddNorm(WithDropout):
    """A residual connection, then layer normalisation over the last axis: LayerNorm(X + Dropout(Y)).

    Source: d2l 1.0, section 11.7.3. The epsilon is 1e-6, as in the book's JAX version; its PyTorch version has 1e-5.

    Attributes:
      dropout: the rate for Y.
    """

    dropout: float

    @nn.compact
    def __call__(self, X: Array, Y: Array, *, deterministic: flags.Flag | None = None) -> Array:  # noqa: N803 the book's names
        """Two arrays of the same shape to one of that shape. Raises ValueError where the shapes differ."""
        if X.shape != Y.shape:
            raise ValueError(f"X {X.shape} and Y {Y.shape} differ: a residual connection needs equal shapes")
        X, Y = cast(self.dtype, X, Y)
        dropped = Dropout(self.dropout, flags.resolve_deterministic(self, deterministic))(Y)
        norm = nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, dtype=self.dtype)
        return promoting(norm, promoting(jnp.add, X, dropped))


class PositionWiseFFN(nn.Module):
    """The position-wise feed-forward network dense2(relu(dense1(X))), the same at every position.

    Source: d2l 1.0, section 11.7.2.

    Attributes:
      ffn_num_hiddens: the size of the hidden layer.
      ffn_num_outputs: the size of the output.
      dtype: as in the other layers.
    """

    ffn_num_hiddens: int
    ffn_num_outputs: int
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        flags.check_dtype(self.dtype)
        check_positive_ints(ffn_num_hiddens=self.ffn_num_hiddens, ffn_num_outputs=self.ffn_num_outputs)
        super().__post_init__()

    def setup(self) -> None:
        options = {"dtype": self.dtype, "promote_dtype": promote_product}
        self.dense1 = nn.Dense(self.ffn_num_hiddens, **options)
        self.dense2 = nn.Dense(self.ffn_num_outputs, **options)

    def __call__(self, X: Array) -> Array:  # noqa: N803 the book's name
        """`[B, T, D]` to `[B, T, ffn_num_outputs]`."""
        (hidden,) = cast(self.dtype, promoting(self.dense1, X))
        return cast(self.dtype, promoting(self.dense2, nn.relu(hidden)))[0]


class TransformerEncoderBlock(WithAttention):
    """Self-attention, then a position-wise feed-forward network, each followed by `AddNorm`.

    Source: d2l 1.0, section 11.7.4.

    Attributes:
      num_hiddens: the size of inputs and output; a multiple of `num_heads`.
      ffn_num_hiddens: the size of the hidden layer of the feed-forward network.
      num_heads: the number of heads.
      dropout: the rate for the attention weights and for the output of both sub-layers.
      use_bias: whether the projections of the attention have biases.

    Raises:
      ValueError: at construction, where `num_heads` does not divide `num_hiddens` or `dropout` is not a rate.
    """

    num_hiddens: int
    ffn_num_hiddens: int
    num_heads: int
    dropout: float
    use_bias: bool = False

    def __post_init__(self) -> None:
        check_positive_ints(ffn_num_hiddens=self.ffn_num_hiddens)
        # These raise now; `setup` runs only in a call.
        MultiHeadAttention(self.num_hiddens, self.num_heads, self.dropout, parent=None)
        super().__post_init__()

    def setup(self) -> None:
        inside = {"implementation": self.implementation, "block": self.block, "dtype": self.dtype}
        self.attention = MultiHeadAttention(self.num_hiddens, self.num_heads, self.dropout, self.use_bias, **inside)
        self.addnorm1 = AddNorm(self.dropout, dtype=self.dtype)
        self.ffn = PositionWiseFFN(self.ffn_num_hiddens, self.num_hiddens, dtype=self.dtype)
        self.addnorm2 = AddNorm(self.dropout, dtype=self.dtype)

    def __call__(self, X: Array, valid_lens: Array | None = None, *, deterministic: flags.Flag | None = None) -> Array:  # noqa: N803
        """`[B, T, num_hiddens]` to the same shape."""
        flag = flags.resolve_deterministic(self, deterministic)
        attended = self.attention(X, X, X, valid_lens, deterministic=flag)
        Y = self.addnorm1(X, attended, deterministic=flag)
        return self.addnorm2(Y, self.ffn(Y), deterministic=flag)


class TransformerEncoder(WithAttention):
    """Token embeddings times √num_hiddens, then `PositionalEncoding` and `num_blks` blocks.

    Source: d2l 1.0, section 11.7.4.

    Attributes:
      vocab_size: the number of tokens.
      num_hiddens: the size of embeddings and output; even, and a multiple of `num_heads`.
      num_blks: the number of blocks.
      ffn_num_hiddens, num_heads, dropout, use_bias: as in `TransformerEncoderBlock`.

    Raises:
      ValueError: at construction, where `num_hiddens` is odd, `num_heads` does not divide it or `dropout` is not a rate.
    """

    vocab_size: int
    num_hiddens: int
    ffn_num_hiddens: int
    num_heads: int
    num_blks: int
    dropout: float
    use_bias: bool = False

    def __post_init__(self) -> None:
        check_positive_ints(vocab_size=self.vocab_size, num_blks=self.num_blks)
        PositionalEncoding(self.num_hiddens, self.dropout, parent=None)  # raises now; `setup` runs only in a call
        TransformerEncoderBlock(self.num_hiddens, self.ffn_num_hiddens, self.num_heads, self.dropout, parent=None)
        super().__post_init__()

    def setup(self) -> None:
        self.embedding = nn.Embed(self.vocab_size, self.num_hiddens)
        self.pos_encoding = PositionalEncoding(self.num_hiddens, self.dropout, dtype=self.dtype)
        sizes = self.num_hiddens, self.ffn_num_hiddens, self.num_heads, self.dropout, self.use_bias
        inside = {"implementation": self.implementation, "block": self.block, "dtype": self.dtype}
        self.blks = [TransformerEncoderBlock(*sizes, **inside) for _ in range(self.num_blks)]

    def __call__(self, tokens: Tokens, valid_lens: Array | None = None, *, deterministic: flags.Flag | None = None) -> Array:
        """Tokens `[B, T]` to `[B, T, num_hiddens]`. Raises ValueError where T is above 1000."""
        flag = flags.resolve_deterministic(self, deterministic)
        X = self.pos_encoding(embed(self.embedding, tokens) * math.sqrt(self.num_hiddens), deterministic=flag)
        for blk in self.blks:
            X = blk(X, valid_lens, deterministic=flag)
        return X
