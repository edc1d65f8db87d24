"""The attention layers of "Dive into Deep Learning" (d2l 1.0, sections 11.3 and 11.5) in linen.

Parameters have the names and shapes of the book's JAX version. As there, layers are called with
`(queries, keys, values, valid_lens)`, and key i of a query may be attended where i < its valid length: `valid_lens` is
integers `[B]`, one for each example, `[B, T]`, one for each query, or None. Three things differ. `deterministic=True` stands
for the book's `training=False`. A layer returns its output alone, and the weights have a method. A query of length 0 gets
weights and output 0, as everywhere in `attn`, where the book's `masked_softmax` is uniform over the masked keys. In the
layers no `[T, S]` array is made but by `attention_weights`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from attn._validation import check_rate
from attn.attention import attend, attention_weights
from attn.scores import additive
from attn.shapes import Array


def masked_softmax(X: Array, valid_lens: Array | None) -> Array:  # noqa: N803 the book's name
    """Softmax of scores `[B, Q, K]` over their last axis, those at and after the valid length replaced by −1e6 (11.3.2.1).

    `valid_lens` is `[B]`, `[B, Q]` or None. A row of length 0 is uniform over all K, as in the book: the layers give 0 there.
    Computed in at least float32, in which −1e6 is finite; the result has the dtype of `X`.
    Raises ValueError where `X` is not floating point of three axes, or `valid_lens` not integers of such a shape.
    """
    if X.ndim != 3 or not jnp.issubdtype(X.dtype, jnp.floating):
        raise ValueError(f"X {X.shape} of {X.dtype} must be floating point scores [B, Q, K]")
    scores = X.astype(jnp.result_type(X, jnp.float32))
    if valid_lens is not None:
        lengths = _checked_lengths(valid_lens, *X.shape[:2])
        lengths = lengths[:, None] if lengths.ndim == 1 else lengths
        scores = jnp.where(jnp.arange(X.shape[2]) < lengths[..., None], scores, -1e6)
    return jax.nn.softmax(scores, axis=-1).astype(X.dtype)


class WithDropout(nn.Module):
    """A module with a field `dropout`, a rate in [0, 1). Raises ValueError at construction where it is not."""

    def __post_init__(self) -> None:
        check_rate("dropout", getattr(self, "dropout", None))
        super().__post_init__()


class _Attention(WithDropout):
    """What the layers have in common. `_heads` says what of the inputs attends to what, `_merged` what becomes of it."""

    def __call__(
        self, queries: Array, keys: Array, values: Array, valid_lens: Array | None = None, *, deterministic: bool = True
    ) -> Array:
        """`[B, T, D]`, `[B, S, D']`, `[B, S, V]` to `[B, T, V]`, or `[B, T, num_hiddens]` where values are projected.

        The rng named "dropout" is needed unless `deterministic`: it drops weights.
        Raises ValueError where shapes disagree, or `valid_lens` is not integers `[B]` or `[B, T]`.
        """
        options = self._options(queries, keys, values, valid_lens)
        rate = getattr(self, "dropout", 0.0)
        if rate and not deterministic:
            options |= {"dropout_rate": rate, "dropout_rng": self.make_rng("dropout")}
        return self._merged(attend(*self._heads(queries, keys, values), **options))

    def attention_weights(self, queries: Array, keys: Array, values: Array, valid_lens: Array | None = None) -> Array:
        """`[B · num_heads, T, S]` before dropout; the heads of example 0 come first. Called for the same as the layer."""
        options = self._options(queries, keys, values, valid_lens)
        weights = attention_weights(*self._heads(queries, keys, values), **options)
        return weights.reshape(weights.shape[0] * weights.shape[1], *weights.shape[2:])

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

    def _heads(self, queries: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        return queries[..., None, :], keys[..., None, :], values[..., None, :]  # one head

    def _merged(self, heads: Array) -> Array:
        return heads.reshape(*heads.shape[:-2], heads.shape[-2] * heads.shape[-1])


class DotProductAttention(_Attention):
    """softmax(queries keysᵀ / √D) values, without parameters (11.3.3); `attention_weights` are `[B, T, S]`."""

    dropout: float


class AdditiveAttention(_Attention):
    """w_vᵀ tanh(W_q q + W_k k), for queries and keys of any two sizes (11.3.4); `attention_weights` are `[B, T, S]`.

    Parameters: W_q `(D, num_hiddens)`, W_k `(D', num_hiddens)` and w_v `(num_hiddens, 1)`, without biases.
    """

    num_hiddens: int
    dropout: float

    def setup(self) -> None:
        self.W_q = nn.Dense(self.num_hiddens, use_bias=False)
        self.W_k = nn.Dense(self.num_hiddens, use_bias=False)
        self.w_v = _Column(self.num_hiddens)

    def _heads(self, queries: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        return super()._heads(self.W_q(queries), self.W_k(keys), values)

    def _options(self, queries: Array, keys: Array, values: Array, valid_lens: Array | None) -> dict[str, Any]:
        return super()._options(queries, keys, values, valid_lens) | {"score": additive(self.w_v())}


class _Column(nn.Module):
    """The kernel of a Dense with one output: the score takes the vector, not the product."""

    size: int

    @nn.compact
    def __call__(self) -> Array:
        return self.param("kernel", nn.initializers.lecun_normal(), (self.size, 1))[:, 0]


class MultiHeadAttention(_Attention):
    """W_o of num_heads dot products side by side, each of num_hiddens / num_heads channels (11.5.2).

    W_q, W_k, W_v and W_o all map to `num_hiddens`, with biases only where `bias`. Head n has the n-th run of channels.
    Raises ValueError at construction where `num_heads` does not divide `num_hiddens`.
    """

    num_hiddens: int
    num_heads: int
    dropout: float
    bias: bool = False
    sizes: tuple[int, int, int] | None = None  # channels of keys, queries and values; None takes them as they come

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
        """By the book's older signature. A call raises ValueError where its inputs have other sizes than these."""
        return cls(num_hiddens, num_heads, dropout, bias, (key_size, query_size, value_size))

    def __post_init__(self) -> None:
        if min(self.num_heads, self.num_hiddens) < 1 or self.num_hiddens % self.num_heads:
            raise ValueError(f"num_hiddens={self.num_hiddens} is not divisible by num_heads={self.num_heads}")
        super().__post_init__()

    def setup(self) -> None:
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Dense(self.num_hiddens, use_bias=self.bias) for _ in range(4))

    def _heads(self, queries: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
        inputs = {"key": keys, "query": queries, "value": values}
        for (name, x), size in zip(inputs.items(), self.sizes or (), strict=False):  # none where there are no sizes
            if x.shape[-1] != size:
                raise ValueError(f"{name}_size={size} is not the last axis of {x.shape}")
        return self._split(self.W_q(queries)), self._split(self.W_k(keys)), self._split(self.W_v(values))

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.num_heads, x.shape[-1] // self.num_heads)  # [B, T, num_hiddens] to [B, T, N, H]

    def _merged(self, heads: Array) -> Array:
        return self.W_o(super()._merged(heads))


def _checked_lengths(valid_lens: Array, batch: int, queries: int) -> Array:
    lengths = jnp.asarray(valid_lens)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"valid_lens is {lengths.dtype}: it must be integers")
    if lengths.shape not in ((batch,), (batch, queries)):
        raise ValueError(f"valid_lens {lengths.shape} must be {(batch,)} or {(batch, queries)}: [B], or [B, T] for each query")
    return jnp.clip(lengths, 0, jnp.iinfo(jnp.int32).max).astype(jnp.int32)  # a wider type would wrap
