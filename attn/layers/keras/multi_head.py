"""`keras.layers.MultiHeadAttention` and `GroupQueryAttention`: projections, attention by head, output projection."""

import string
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from attn._validation import check_positive_ints
from attn.layers import initializers
from attn.layers.dense import cast, promote_product, promoting
from attn.layers.keras import axes
from attn.layers.keras.base import AttentionLayer
from attn.layers.keras.masking import Version
from attn.shapes import Array, Mask


class _Projected(AttentionLayer):
    """What the two layers share. A subclass has their fields, and `_sizes`: (query heads, key/value heads, H, V)."""

    IGNORES_QUERY_MASK: ClassVar[bool]  # whether Keras 3.15 does

    def __post_init__(self) -> None:
        layer: Any = self
        if layer.initializer is not None:
            initializers.family(layer.initializer)
        super().__post_init__()

    @nn.nowrap
    def _sizes(self) -> tuple[int, int, int, int]:
        raise NotImplementedError

    @nn.nowrap
    def _output_shape(self) -> tuple[int, ...]:
        """The shape of an output vector; () means that of a query."""
        return ()

    @nn.nowrap
    def _heads(self, query: Array, key: Array, value: Array, over: axes.Axes) -> tuple[Array, Array, Array]:
        query_heads, key_heads, key_dim, value_dim = self._sizes()
        return (
            axes.as_lengths(self._project("query", query, (query_heads, key_dim)), over),
            axes.as_lengths(self._project("key", key, (key_heads, key_dim)), over),
            axes.as_lengths(self._project("value", value, (key_heads, value_dim)), over),
        )

    @nn.nowrap
    def _merge_heads(self, heads: Array, query: Array, masks: Any) -> Array:
        return self._project("attention_output", heads, self._output_shape() or (query.shape[-1],), contracted=2)

    @nn.nowrap
    def _project(self, name: str, x: Array, features: tuple[int, ...], contracted: int = 1) -> Array:
        """x `[.., *C]` times a kernel `[*C, *features]`, plus a bias."""
        layer: Any = self
        inputs, outputs = string.ascii_lowercase[:contracted], string.ascii_lowercase[contracted:][: len(features)]
        family = initializers.family(layer.initializer or initializers.of_keras(layer.version))
        projection = nn.Einsum(
            (*x.shape[x.ndim - contracted :], *features),
            f"...{inputs},{inputs}{outputs}->...{outputs}",
            use_bias=layer.use_bias,
            kernel_init=family.combine if contracted == 2 else family.project,
            dtype=layer.dtype,
            promote_dtype=promote_product,
            name=name,
        )
        return cast(layer.dtype, promoting(projection, x))[0]

    @nn.nowrap
    def _ignores_query_mask(self) -> bool:
        layer: Any = self
        return layer.version == "3.15" and self.IGNORES_QUERY_MASK

    @nn.nowrap
    def _penalty(self, mask: Mask | None, scores: bool, rank: int) -> float | None:
        layer: Any = self
        fused = layer.version == "3.15" and not scores and not layer.dropout and rank <= 3
        if fused and mask is not None:
            return 0.7 * float(jnp.finfo(jnp.float32).max)
        return 1e9 if layer.version == "2.11" else None


class MultiHeadAttention(_Projected):
    """`keras.layers.MultiHeadAttention` (2.11 to 3.15): softmax(q kᵀ / √key_dim) v of each head.

    Vaswani et al. 2017, section 3.2.2, but each head projects to `key_dim` channels, which is not divided by the heads. The
    parameters have Keras' names and shapes: query and key `[D, N, H]`, value `[D, N, V]`, attention_output `[N, V, O]`, each
    with a bias unless `use_bias=False`.

    A query without a key gives 0 here, before the bias of the output. With version="2.11" its weights are nearly uniform:
    subtracting 1e9 rounds away most of the differences between the scores. With version="3.15" its output is the mean of all
    values, or 0 where dropout, scores or a rank above 3 rule out Keras' fused path; and `query_mask` is ignored, because that
    version overwrites it (keras.src.layers.attention.multi_head_attention, `call`).

    Attributes:
      num_heads: the number of heads N.
      key_dim: the channels H of each query and key head.
      value_dim: the channels V of each value head; None means `key_dim`.
      output_shape: the shape of an output vector; None means the last axis of the query.
      use_bias: whether the projections have biases.
      dropout: the rate for the weights.
      attention_axes: the axes of the inputs that are attended over; None means all between the first and the last.
      version: "2.11", "3.15", or None for our contract.
      initializer: a name of `attn.layers.initializers.FAMILIES`; None means that of the version, or of Keras 2.11.

    Example:
      >>> layer = attn.layers.keras.MultiHeadAttention(num_heads=2, key_dim=8)
      >>> variables = layer.init(jax.random.key(0), x, x)
      >>> output = layer.apply(variables, x, x, value_mask=valid)

    Raises:
      ValueError: a size that is not a positive int, a rate outside of [0, 1), or an unknown name.
    """

    num_heads: int
    key_dim: int
    value_dim: int | None = None
    output_shape: int | tuple[int, ...] | None = None
    use_bias: bool = True
    dropout: float = 0.0
    attention_axes: int | tuple[int, ...] | None = None
    version: Version | None = None
    initializer: str | None = None

    IGNORES_QUERY_MASK: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive_ints(num_heads=self.num_heads, key_dim=self.key_dim, value_dim=self.value_dim)
        for size in self._output_shape():
            check_positive_ints(output_shape=size)
        super().__post_init__()

    @nn.nowrap
    def _sizes(self) -> tuple[int, int, int, int]:
        return self.num_heads, self.num_heads, self.key_dim, self.value_dim or self.key_dim

    @nn.nowrap
    def _output_shape(self) -> tuple[int, ...]:
        return () if self.output_shape is None else tuple(np.atleast_1d(self.output_shape).tolist())


class GroupQueryAttention(_Projected):
    """`keras.layers.GroupQueryAttention` (3.15): query head n reads key and value head n // (query heads / key/value heads).

    Ainslie et al. 2023, "GQA". The parameters are those of `MultiHeadAttention`, with `num_key_value_heads` heads of keys and
    values. With version="3.15" the output of a query without a key is the mean of all values where Keras takes its fused path.

    Attributes:
      head_dim: the channels of each head.
      num_query_heads: the number of query heads, a multiple of `num_key_value_heads`.
      num_key_value_heads: the number of key and value heads.
      dropout, use_bias, version, initializer: as in `MultiHeadAttention`.

    Raises:
      ValueError: sizes that do not go together, a rate outside of [0, 1), or an unknown name.
    """

    head_dim: int
    num_query_heads: int
    num_key_value_heads: int
    dropout: float = 0.0
    use_bias: bool = True
    version: Version | None = None
    initializer: str | None = None

    VERSIONS: ClassVar[tuple[str, ...]] = ("3.15",)
    IGNORES_QUERY_MASK: ClassVar[bool] = False
    attention_axes: ClassVar[int] = -2

    def __post_init__(self) -> None:
        groups = self.num_key_value_heads
        check_positive_ints(head_dim=self.head_dim, num_query_heads=self.num_query_heads, num_key_value_heads=groups)
        if self.num_query_heads % groups:
            raise ValueError(f"num_query_heads={self.num_query_heads} is not a multiple of num_key_value_heads={groups}")
        super().__post_init__()

    @nn.nowrap
    def _sizes(self) -> tuple[int, int, int, int]:
        return self.num_query_heads, self.num_key_value_heads, self.head_dim, self.head_dim
