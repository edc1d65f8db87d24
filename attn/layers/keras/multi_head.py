"""`keras.layers.MultiHeadAttention` and `GroupQueryAttention`: projections, attention by head, projection."""

import functools
import string
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from attn import initializers
from attn.dispatch import attend, attend_pooled, attention_weights
from attn.dropout import check_rate
from attn.layers.keras import axes, masking
from attn.layers.keras.masking import Version
from attn.masks import merge
from attn.positions import Relative
from attn.shapes import Array, Mask, Valid


class _Projected(nn.Module):
    """What both have in common. A subclass has its fields, and `_sizes`: (query heads, key/value heads, H, V)."""

    def __post_init__(self) -> None:
        module: Any = self
        masking.check_version(module.version, module.VERSIONS)
        check_rate("dropout", module.dropout)
        if module.initializer is not None:
            initializers.family(module.initializer)
        super().__post_init__()

    def __call__(
        self,
        query: Array,
        value: Array,
        key: Array | None = None,
        *,
        query_mask: Valid | None = None,
        value_mask: Valid | None = None,
        key_mask: Valid | None = None,
        attention_mask: Mask | None = None,
        use_causal_mask: bool = False,
        position: Relative | None = None,
        deterministic: bool = True,
    ) -> Array:
        """`[*B, T, D]`, `[*B, S, D']`, `[*B, S, D'']` to `[*B, T, O]`, O being the query's D where nothing else is asked for.

        Args:
          query_mask, value_mask, key_mask: `[*B, T]`, `[*B, S]`, `[*B, S]`, of real tokens.
          attention_mask: `[T, S]`, `[*B, T, S]` or `[*B, N, T, S]`, each axis full or 1.
          use_causal_mask: query t may attend to keys 0 … t, also where T ≠ S.
          position: what a kind of positions does to queries, keys and scores; Keras has none.
          deterministic: False drops weights, and needs the rng named "dropout".

        Raises:
          ValueError: one line with the argument, its shape or value, and the rule.
        """
        masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask, "attention_mask": attention_mask}
        return self._attend(query, value, key, masks, use_causal_mask, position, deterministic, attend)

    def mean(
        self,
        query: Array,
        value: Array,
        key: Array | None = None,
        *,
        over: Valid | None = None,
        value_mask: Valid | None = None,
        attention_mask: Mask | None = None,
        use_causal_mask: bool = False,
        position: Relative | None = None,
        deterministic: bool = True,
    ) -> Array:
        """The mean over the queries of what a call returns, `[*B, O]`, in fewer products: see `attn.attend_pooled`.

        `over`, of the query's shape without its last axis, says over which of them; 0 where it is over none. None: all.
        """
        masks = {"value_mask": value_mask, "attention_mask": attention_mask}
        if over is not None:
            over = masking.checked("over", over, query.shape[:-1])
            module: Any = self
            over = axes.as_lengths(over[..., None, None], axes.resolve(module.attention_axes, query.ndim))[..., 0, 0]
        pool = functools.partial(attend_pooled, query_weights=masking.mean_weights(over))
        mean = self._attend(query, value, key, masks, use_causal_mask, position, deterministic, pool)
        return mean if over is None else jnp.where(jnp.any(over, axis=-1, keepdims=True), mean, 0)  # not the bias

    def attention_scores(
        self,
        query: Array,
        value: Array,
        key: Array | None = None,
        *,
        query_mask: Valid | None = None,
        value_mask: Valid | None = None,
        key_mask: Valid | None = None,
        attention_mask: Mask | None = None,
        use_causal_mask: bool = False,
        position: Relative | None = None,
    ) -> Array:
        """The weights `[*B, N, T, S]` before dropout, as Keras returns them (its Attention's are those after)."""
        masks = {"query_mask": query_mask, "value_mask": value_mask, "key_mask": key_mask, "attention_mask": attention_mask}
        return self._attend(query, value, key, masks, use_causal_mask, position, True, attention_weights)

    @nn.compact
    def _attend(
        self,
        query: Array,
        value: Array,
        key: Array | None,
        masks: dict[str, Array | None],
        use_causal_mask: bool,
        position: Relative | None,
        deterministic: bool,
        operator: Callable[..., Array],
    ) -> Array:
        module: Any = self
        key = value if key is None else key
        over = axes.resolve(module.attention_axes, query.ndim)
        for name, x in (("value", value), ("key", key)):
            if x.ndim != query.ndim:
                raise ValueError(f"{name} {x.shape} must have the rank of query {query.shape}")
        query_heads, key_heads, key_dim, value_dim = module._sizes()
        projected = (
            axes.as_lengths(self._project(name, x, (heads, size)), over)
            for name, x, heads, size in (
                ("query", query, query_heads, key_dim),
                ("key", key, key_heads, key_dim),
                ("value", value, key_heads, value_dim),
            )
        )
        q, k, v = projected
        options: dict[str, Any] = {}
        if position is not None:
            q, k, options["score_mod"] = position.rotate(q), position.rotate(k), position.score_mod
        options |= self._masks(masks, use_causal_mask, over, query, key, operator is attention_weights, (q, k))
        if operator is attention_weights:
            return attention_weights(q, k, v, **options)
        if module.dropout and not deterministic:
            options |= {"dropout_rate": module.dropout, "dropout_rng": self.make_rng("dropout")}
        heads = operator(q, k, v, **options)
        if operator is attend:
            heads = axes.as_axes(heads, over, query.shape)
        output = module._output_shape() or (query.shape[-1],)
        return self._project("attention_output", heads, output, contracted=2)

    def _project(self, name: str, x: Array, features: tuple[int, ...], contracted: int = 1) -> Array:
        """x `[.., *C]` times a kernel `[*C, *features]`."""
        module: Any = self
        inputs, outputs = string.ascii_lowercase[:contracted], string.ascii_lowercase[contracted:][: len(features)]
        family = initializers.family(module.initializer or initializers.of_keras(module.version))
        return nn.Einsum(
            (*x.shape[x.ndim - contracted :], *features),
            f"...{inputs},{inputs}{outputs}->...{outputs}",
            use_bias=module.use_bias,
            kernel_init=family.combine if contracted == 2 else family.project,
            name=name,
        )(x)

    def _masks(
        self,
        masks: dict[str, Array | None],
        causal: bool,
        over: axes.Axes,
        query: Array,
        key: Array,
        scores: bool,
        heads: tuple[Array, Array],
    ) -> dict[str, Any]:
        module: Any = self
        fused = module.version == "3.15" and not scores and not module.dropout and query.ndim <= 3
        by_name = axes.by_heads(masks, over, query.shape, key.shape)
        if module.version == "3.15" and module.FORGETS_QUERY_MASK:
            by_name.pop("query_mask", None)
        mask = merge(*by_name.values())
        if fused and mask is not None:
            return masking.lowered(mask, causal, 0.7 * float(jnp.finfo(jnp.float32).max), *heads)
        if module.version == "2.11":
            return masking.lowered(mask, causal, 1e9, *heads)
        return masking.contract(mask, causal)


class MultiHeadAttention(_Projected):
    """`keras.layers.MultiHeadAttention` (2.11 to 3.15): every head projects to `key_dim`, which is not divided by heads.

    softmax(q kᵀ / √key_dim) v of each head (Vaswani et al. 2017, section 3.2.2). Parameters are Keras' own, by name and shape:
    query, key `[D, N, H]`, value `[D, N, V]`, attention_output `[N, V, O]`, each with a bias.

    What a row without a key is: 0 here, before the output's bias. With version="2.11" its weights are uniform but for what
    −1e9 leaves of the scores. With "3.15" the mean of all values, or 0 where dropout, scores or a rank other than 3 rule out
    its fused path; and query_mask is ignored, as it overwrites it (keras.src.layers.attention.multi_head_attention, `call`).

    `attention_axes`: which axes of the inputs are attended over; None, all between the first and the last.
    """

    num_heads: int
    key_dim: int
    value_dim: int | None = None  # None: key_dim
    output_shape: int | tuple[int, ...] | None = None  # None: the query's last axis
    use_bias: bool = True
    dropout: float = 0.0  # of the weights
    attention_axes: int | tuple[int, ...] | None = None
    version: Version | None = None
    initializer: str | None = None  # a name of `attn.initializers.FAMILIES`; None: that of the version, or of Keras 2.11

    VERSIONS: ClassVar = masking.VERSIONS
    FORGETS_QUERY_MASK: ClassVar = True

    def __post_init__(self) -> None:
        masking.check_sizes(num_heads=self.num_heads, key_dim=self.key_dim, value_dim=self.value_dim)
        for size in self._output_shape():
            masking.check_sizes(output_shape=size)
        super().__post_init__()

    def _sizes(self) -> tuple[int, int, int, int]:
        return self.num_heads, self.num_heads, self.key_dim, self.value_dim or self.key_dim

    def _output_shape(self) -> tuple[int, ...]:
        return () if self.output_shape is None else tuple(np.atleast_1d(self.output_shape).tolist())


class GroupQueryAttention(_Projected):
    """`keras.layers.GroupQueryAttention` (3.15): query head n reads key and value head n // (query heads / key/value heads).

    Ainslie et al. 2023, "GQA". Parameters as MultiHeadAttention's, key and value with `num_key_value_heads`. With
    version="3.15" a row without a key is the mean of all values where Keras takes its fused path.
    """

    head_dim: int
    num_query_heads: int
    num_key_value_heads: int
    dropout: float = 0.0
    use_bias: bool = True
    version: Version | None = None
    initializer: str | None = None

    VERSIONS: ClassVar = ("3.15",)
    FORGETS_QUERY_MASK: ClassVar = False
    attention_axes: ClassVar = -2

    def __post_init__(self) -> None:
        groups = self.num_key_value_heads
        masking.check_sizes(head_dim=self.head_dim, num_query_heads=self.num_query_heads, num_key_value_heads=groups)
        if self.num_query_heads % groups:
            raise ValueError(f"num_query_heads={self.num_query_heads} is not a multiple of num_key_value_heads={groups}")
        super().__post_init__()

    def _sizes(self) -> tuple[int, int, int, int]:
        return self.num_query_heads, self.num_key_value_heads, self.head_dim, self.head_dim

    def _output_shape(self) -> tuple[int, ...]:
        return ()
