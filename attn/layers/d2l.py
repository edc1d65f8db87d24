"""The attention layers of "Dive into Deep Learning" (d2l 1.0, sections 11.3 and 11.5) in linen.

The parameters have the names and shapes of the book's JAX version, and the layers are called in the same way, as
`(queries, keys, values, valid_lens)`. `valid_lens` holds integers, `[B]` with one length for each example or `[B, T]` with one
for each query: a query may attend to key i where i is less than its valid length. None means to all keys.

There are three differences from the book. `deterministic=True`, as a field or an argument of the call, replaces
`training=False`, and is the default. A layer returns its output only; the
weights are returned by the method `attention_weights`, and no other method creates a `[T, S]` array. A query whose valid length
is 0 gets weights and an output of 0, as everywhere in `attn`; the book's weights are uniform there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from attn._integers import as_clipped
from attn._validation import check_positive_ints, check_rate
from attn.attention import attend, attention_weights
from attn.kernels.selection import Implementation
from attn.layers import flags
from attn.layers.dense import cast, promote_product, promoting
from attn.scores import additive
from attn.shapes import Array


def masked_softmax(X: Array, valid_lens: Array | None) -> Array:  # noqa: N803 the book's name
    """Softmax over the last axis, after the scores at and after the valid length have been replaced by −1e6.

    Source: d2l 1.0, section 11.3.2.1. A row whose valid length is 0 is uniform, as in the book; our layers give 0 there.

    Args:
      X: scores, floating point, `[B, Q, K]`.
      valid_lens: integers `[B]` or `[B, Q]`; None means that all scores are valid.

    Returns:
      The weights, `[B, Q, K]`, in the dtype of `X`. They are computed in at least float32, because −1e6 is infinite in float16.

    Raises:
      ValueError: `X` is not floating point or does not have three axes, or `valid_lens` has another dtype or shape.
    """
    if X.ndim != 3 or not jnp.issubdtype(X.dtype, jnp.floating):
        raise ValueError(f"X {X.shape} of {X.dtype} must be floating point scores [B, Q, K]")
    scores = X.astype(jnp.result_type(X, jnp.float32))
    if valid_lens is not None:
        lengths = _checked_lengths(valid_lens, *X.shape[:2])
        lengths = lengths[:, None] if lengths.ndim == 1 else lengths
        scores = jnp.where(jnp.arange(X.shape[2]) < lengths[..., None], scores, -1e6)
    return jax.nn.softmax(scores, axis=-1).astype(X.dtype)


class WithDropout(flags.WithFlags, kw_only=True):
    """The base of the modules with a field `dropout`.

    Attributes:
      dtype: the dtype of activations and products, as in Keras' layers; None promotes inputs and parameters.

    Raises:
      ValueError: at construction, where `dropout` is not a rate in [0, 1) or `dtype` is not floating point.
    """

    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        layer: Any = self
        layer.dropout = check_rate("dropout", layer.dropout)
        flags.check_dtype(self.dtype)
        super().__post_init__()


class WithAttention(WithDropout, kw_only=True):
    """The base of the modules with attention inside.

    Attributes:
      implementation, block: as in `attn.attend`.
    """

    implementation: Implementation = "auto"
    block: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        flags.check_implementation(self.implementation)
        super().__post_init__()


class _Attention(WithAttention):
    """The base of the layers. A subclass may override `_heads`, which projects and splits, and `_merge_heads`, its inverse."""

    def __call__(
        self,
        queries: Array,
        keys: Array,
        values: Array,
        valid_lens: Array | None = None,
        *,
        deterministic: flags.Flag | None = None,
    ) -> Array:
        """Applies the layer.

        Args:
          queries: `[B, T, D]`.
          keys: `[B, S, D']`.
          values: `[B, S, V]`.
          valid_lens: integers `[B]` or `[B, T]`: how many keys, from the first, the queries may attend to. None means all.
          deterministic: False applies dropout to the weights, and needs the rng named "dropout". None means the field, or True.

        Returns:
          `[B, T, V]`; `[B, T, num_hiddens]` from MultiHeadAttention, which projects the values.

        Raises:
          ValueError: the shapes do not match, or `valid_lens` has another dtype or shape.
        """
        options = self._options(queries, keys, values, valid_lens)
        options |= {"implementation": self.implementation, "block": self.block}
        heads = self._heads(*cast(self.dtype, queries, keys, values))
        flag, rate = flags.resolve_deterministic(self, deterministic), getattr(self, "dropout", 0.0)
        return self._merge_heads(flags.with_dropout(self, rate, flag, lambda dropout: attend(*heads, **options, **dropout)))

    def attention_weights(self, queries: Array, keys: Array, values: Array, valid_lens: Array | None = None) -> Array:
        """The weights before dropout, for the same arguments as a call.

        Returns:
          `[B · num_heads, T, S]`, as in the book: first all heads of example 0, then those of example 1, and so on.

        Example:
          >>> weights = layer.apply(params, queries, keys, values, valid_lens, method="attention_weights")
        """
        options = self._options(queries, keys, values, valid_lens)
        weights = attention_weights(*self._heads(*cast(self.dtype, queries, keys, values)), **options)
        return weights.reshape(weights.shape[0] * weights.shape[1], *weights.shape[2:])

    @nn.nowrap
    def _options(self, queries: Array, keys: Array, values: Array, valid_lens: Array | None) -> dict[str, Any]:
        shapes = queries.shape, keys.shape, values.shape
        if {len(shape) for shape in shapes} != {3} or shapes[0][0] != shapes[1][0] or shapes[1][:2] != shapes[2][:2]:
            raise ValueError("queries {}, keys {} and values {} must be [B, T, D], [B, S, D'] and [B, S, V]".format(*shapes))
        if valid_lens is None:
            return {}
        lengths = _checked_lengths(valid_lens, *queries.shape[:2])
        if lengths.ndim == 1:
            return {"key_lengths": lengths}
        return {"mask_mod": lambda batch, head, query, key: key < lengths[batch, query]}

    @nn.nowrap
    def _heads(self, queries: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        return queries[..., None, :], keys[..., None, :], values[..., None, :]  # one head

    @nn.nowrap
    def _merge_heads(self, heads: Array) -> Array:
        return heads.reshape(*heads.shape[:-2], heads.shape[-2] * heads.shape[-1])


class DotProductAttention(_Attention):
    """Scaled dot-product attention: softmax(queries keysᵀ / √D) values. It has no parameters.

    Source: d2l 1.0, section 11.3.3.

    Attributes:
      dropout: the rate for the weights.
    """

    dropout: float


class AdditiveAttention(_Attention):
    """Additive attention: the score is w_vᵀ tanh(W_q q + W_k k). Queries and keys may have different sizes.

    Source: d2l 1.0, section 11.3.4; Bahdanau et al. 2015. The parameters are W_q `[D, num_hiddens]`, W_k `[D', num_hiddens]`
    and w_v `[num_hiddens, 1]`, without biases.

    Attributes:
      num_hiddens: the size of the projected queries and keys.
      dropout: the rate for the weights.
    """

    num_hiddens: int
    dropout: float

    def __post_init__(self) -> None:
        check_positive_ints(num_hiddens=self.num_hiddens)
        super().__post_init__()

    def setup(self) -> None:
        self.W_q = nn.Dense(self.num_hiddens, use_bias=False, dtype=self.dtype)
        self.W_k = nn.Dense(self.num_hiddens, use_bias=False, dtype=self.dtype)
        self.w_v = _Column(self.num_hiddens)

    @nn.nowrap
    def _heads(self, queries: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        return super()._heads(promoting(self.W_q, queries), promoting(self.W_k, keys), values)

    @nn.nowrap
    def _options(self, queries: Array, keys: Array, values: Array, valid_lens: Array | None) -> dict[str, Any]:
        return super()._options(queries, keys, values, valid_lens) | {"score": additive(self.w_v())}


class _Column(nn.Module):
    """The kernel `[size, 1]` of a Dense layer with one output, as a vector, which is what the additive score needs."""

    size: int

    @nn.compact
    def __call__(self) -> Array:
        return self.param("kernel", nn.initializers.lecun_normal(), (self.size, 1))[:, 0]


class MultiHeadAttention(_Attention):
    """Multi-head attention: W_o applied to the concatenated outputs of `num_heads` scaled dot-product attentions.

    Source: d2l 1.0, section 11.5.2; Vaswani et al. 2017, section 3.2.2. The parameters are W_q, W_k, W_v and W_o, each a Dense
    layer with `num_hiddens` outputs. Head n reads the n-th contiguous group of num_hiddens / num_heads channels.

    Attributes:
      num_hiddens: the size of the projections and of the output; a multiple of `num_heads`.
      num_heads: the number of heads.
      dropout: the rate for the weights.
      bias: whether the projections have biases.
      sizes: the sizes of keys, queries and values, which a call then checks; None accepts any. See `of_sizes`.

    Raises:
      ValueError: at construction, where `num_heads` does not divide `num_hiddens` or `dropout` is not a rate; in a call, where
        an input has another size than `sizes`.
    """

    num_hiddens: int
    num_heads: int
    dropout: float
    bias: bool = False
    sizes: tuple[int, int, int] | None = None

    @classmethod
    def of_sizes(
        cls,
        key_size: int,
        query_size: int,
        value_size: int,
        num_hiddens: int,
        num_heads: int,
        dropout: float,
        bias: bool = False,
    ) -> "MultiHeadAttention":
        """Constructs the layer with the signature of the book's older versions, which gives the sizes of the inputs.

        Raises:
          ValueError: as the constructor; and in a call, where an input has another size.
        """
        return cls(num_hiddens, num_heads, dropout, bias, (key_size, query_size, value_size))

    def __post_init__(self) -> None:
        check_positive_ints(num_hiddens=self.num_hiddens, num_heads=self.num_heads)
        if self.num_hiddens % self.num_heads:
            raise ValueError(f"num_hiddens={self.num_hiddens} is not divisible by num_heads={self.num_heads}")
        super().__post_init__()

    def setup(self) -> None:
        options = {"use_bias": self.bias, "dtype": self.dtype, "promote_dtype": promote_product}
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Dense(self.num_hiddens, **options) for _ in range(4))

    @nn.nowrap
    def _heads(self, queries: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        inputs = {"key": keys, "query": queries, "value": values}
        for (name, x), size in zip(inputs.items(), self.sizes or (), strict=False):  # without sizes, nothing is checked
            if x.shape[-1] != size:
                raise ValueError(f"{name}_size={size} is not the last axis of {x.shape}")
        projected = promoting(self.W_q, queries), promoting(self.W_k, keys), promoting(self.W_v, values)
        query, key, value = cast(self.dtype, *projected)
        return self._split(query), self._split(key), self._split(value)

    @nn.nowrap
    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)  # [B, T, num_hiddens] to [B, T, N, H]

    @nn.nowrap
    def _merge_heads(self, heads: Array) -> Array:
        return cast(self.dtype, promoting(self.W_o, super()._merge_heads(heads)))[0]


def _checked_lengths(valid_lens: Array, batch: int, queries: int) -> Array:
    lengths = as_clipped("valid_lens", valid_lens, lowest=0)
    if lengths.shape not in ((batch,), (batch, queries)):
        raise ValueError(f"valid_lens {lengths.shape} must be {(batch,)} or {(batch, queries)}: [B], or [B, T] for each query")
    return lengths
