"""What Keras' attention layers share: how they are called, their masks and their dropout."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from attn._validation import check_rate
from attn.attention import attend, attend_pooled, attention_weights
from attn.kernels.masking import combine_masks
from attn.kernels.selection import Implementation
from attn.layers import flags
from attn.layers.dense import cast
from attn.layers.keras import axes, masking
from attn.positions import Relative
from attn.shapes import Array, Mask, Query, Valid

_KERAS_ARGUMENTS = {
    "training": "deterministic=False for training=True",
    "return_attention_scores": 'layer.apply(variables, query, value, method="attention_scores")',
    "mask": "query_mask, value_mask and key_mask",
}


class _Masks(NamedTuple):
    """The masks of one call under Keras' names; True means may attend."""

    query_mask: Valid | None = None
    value_mask: Valid | None = None
    key_mask: Valid | None = None
    attention_mask: Mask | None = None
    causal: flags.Flag | None = None


class AttentionLayer(flags.WithFlags, kw_only=True):
    """The base class. A subclass has `dropout`, `version` and `attention_axes`, and defines the methods that begin with `_`.

    Attributes:
      use_causal_mask, position: given here or in the call, not in both.
      implementation, block: as in `attn.attend`.
      dtype: the dtype of projections and output; None promotes inputs and parameters. Scores and softmax are computed in at
        least float32, and parameters stay as they are, in any case.
    """

    use_causal_mask: bool | None = None
    position: Relative | None = None
    implementation: Implementation = "auto"
    block: int | tuple[int, int] | None = None
    dtype: DTypeLike | None = None

    VERSIONS: ClassVar[tuple[str, ...]] = masking.VERSIONS
    SCORES_AFTER_DROPOUT: ClassVar[bool] = False

    def __post_init__(self) -> None:
        layer: Any = self
        masking.check_version(layer.version, self.VERSIONS)
        layer.dropout = check_rate("dropout", layer.dropout)
        flags.check_implementation(self.implementation)
        flags.check_dtype(self.dtype)
        super().__post_init__()

    def __call__(
        self,
        query: Array,
        value: Array | None = None,
        key: Array | None = None,
        query_mask: Valid | None = None,
        value_mask: Valid | None = None,
        key_mask: Valid | None = None,
        attention_mask: Mask | None = None,
        *,
        use_causal_mask: flags.Flag | None = None,
        position: Relative | None = None,
        deterministic: flags.Flag | None = None,
        **unknown: Any,
    ) -> Array:
        """The output of attention, `[*B, T, O]`.

        O is the last axis of `value` for Attention and AdditiveAttention. For the layers that project it is `output_shape`,
        or the last axis of `query`.

        Args:
          query: `[*B, T, D]`.
          value: `[*B, S, D']`, required. It comes before `key`, as in Keras.
          key: `[*B, S, D'']`; None means `value`.
          query_mask, value_mask, key_mask: bool, `[*B, T]`, `[*B, S]` and `[*B, S]`; True is a real token.
          attention_mask: bool, `[T, S]`, `[*B, T, S]` or `[*B, N, T, S]`, each axis full or 1; True means may attend.
          use_causal_mask: whether query t may attend to keys 0 … t only, also where T ≠ S. None means the field, or False.
          position: a kind of relative positions, which acts on queries, keys and scores. None means the field. Keras has none.
          deterministic: False applies dropout to the weights, and needs the rng named "dropout". None means the field, or True.

        Raises:
          TypeError: `value` is missing, or an argument is unknown; for one of Keras' arguments the message names ours.
          ValueError: one line with the argument, its shape or value, and the rule.
        """
        value = self._checked(value, unknown)
        masks = _Masks(query_mask, value_mask, key_mask, attention_mask, use_causal_mask)
        run = functools.partial(attend, implementation=self.implementation, block=self.block)
        return self._attend("output", run, query, value, key, masks, position, flags.resolve_deterministic(self, deterministic))

    def mean(
        self,
        query: Array,
        value: Array | None = None,
        key: Array | None = None,
        over: Valid | None = None,
        value_mask: Valid | None = None,
        attention_mask: Mask | None = None,
        *,
        use_causal_mask: flags.Flag | None = None,
        position: Relative | None = None,
        deterministic: flags.Flag | None = None,
        **unknown: Any,
    ) -> Array:
        """The mean over the queries of what a call returns, `[*B, O]`, with fewer products: see `attn.attend_pooled`.

        Args:
          over: bool, of the shape of `query` without its last axis: the queries that the mean is taken over; 0 where there are
            none. None means all.
          value_mask, attention_mask, use_causal_mask, position, deterministic: as in a call.
        """
        layer: Any = self
        value = self._checked(value, unknown)
        if over is not None:
            over = masking.checked("over", over, query.shape[:-1])
            over = axes.as_lengths(over[..., None, None], axes.resolve(layer.attention_axes, query.ndim))[..., 0, 0]
        pool = functools.partial(
            attend_pooled, query_weights=masking.mean_weights(over), implementation=self.implementation, block=self.block
        )
        masks = _Masks(value_mask=value_mask, attention_mask=attention_mask, causal=use_causal_mask)
        flag = flags.resolve_deterministic(self, deterministic)
        mean = self._attend("mean", pool, query, value, key, masks, position, flag)
        # Without this, the mean over no query would be the bias of the output projection.
        return mean if over is None else jnp.where(jnp.any(over, axis=-1, keepdims=True), mean, 0)

    def attention_scores(
        self,
        query: Array,
        value: Array | None = None,
        key: Array | None = None,
        query_mask: Valid | None = None,
        value_mask: Valid | None = None,
        key_mask: Valid | None = None,
        attention_mask: Mask | None = None,
        *,
        use_causal_mask: flags.Flag | None = None,
        position: Relative | None = None,
        deterministic: flags.Flag | None = None,
        **unknown: Any,
    ) -> Array:
        """The weights that Keras returns for `return_attention_scores=True`. The arguments are those of a call.

        Attention and AdditiveAttention return them as `[*B, T, S]` after dropout; MultiHeadAttention and GroupQueryAttention
        as `[*B, N, T, S]` before dropout, so that they refuse `deterministic=False` in the call, and ignore the field.
        """
        value = self._checked(value, unknown)
        flag = flags.resolve_deterministic(self, deterministic)
        if not self.SCORES_AFTER_DROPOUT:
            if flag is False and deterministic is not None:
                raise ValueError(f"deterministic=False: the scores of {type(self).__name__} are those before dropout")
            flag = True
        masks = _Masks(query_mask, value_mask, key_mask, attention_mask, use_causal_mask)
        return self._attend("scores", _weights, query, value, key, masks, position, flag)

    @nn.compact
    def _attend(
        self,
        kind: Literal["output", "mean", "scores"],
        operator: Callable[..., Array],
        query: Array,
        value: Array,
        key: Array | None,
        masks: _Masks,
        position: Relative | None,
        deterministic: flags.Flag,
    ) -> Array:
        layer: Any = self
        key = value if key is None else key
        over = axes.resolve(layer.attention_axes, query.ndim)
        for name, x in (("value", value), ("key", key)):
            if x.ndim != query.ndim:
                raise ValueError(f"{name} {x.shape} must have the rank of query {query.shape}")
            if any(x.shape[axis] != query.shape[axis] for axis in range(query.ndim - 1) if axis not in over):
                raise ValueError(f"{name} {x.shape} and query {query.shape} differ in an axis that is not attended over")
        query, key, value = cast(self.dtype, query, key, value)
        q, k, v = self._heads(query, key, value, over)
        options = self._score(query.shape[-1])
        if (position := flags.resolve(self, "position", position, otherwise=None)) is not None:
            q, k, options["score_mod"] = position.rotate(q), position.rotate(k), position.score_mod
        options |= self._mask_options(masks, over, query, key, (q, k), kind == "scores")
        output = flags.with_dropout(self, layer.dropout, deterministic, lambda dropout: operator(q, k, v, **options, **dropout))
        if kind == "scores":
            return self._merge_scores(output)
        return self._merge_heads(axes.as_axes(output, over, query.shape) if kind == "output" else output, query, masks)

    @nn.nowrap
    def _checked(self, value: Array | None, unknown: dict[str, Any]) -> Array:
        """The value. Raises TypeError where it is missing, or where there are unknown arguments."""
        name = type(self).__name__
        for argument in unknown:
            ours = _KERAS_ARGUMENTS.get(argument)
            raise TypeError(f"{name} has no argument {argument!r}" + (f": use {ours}" if ours else ""))
        if value is None:
            raise TypeError(f"{name} needs value: layer(query, value), which is layer(x, x) for self-attention")
        return jnp.asarray(value)

    @nn.nowrap
    def _mask_options(
        self, masks: _Masks, over: axes.Axes, query: Array, key: Array, heads: tuple[Query, Query], scores: bool
    ) -> dict[str, Any]:
        """The arguments of `attn.attend` for the masks, by the rule of the layer's version."""
        given = masks._asdict()
        causal = flags.resolve(self, "use_causal_mask", given.pop("causal"), otherwise=False)
        causal = getattr(self, "causal", False) or causal
        by_name = axes.by_heads(given, over, query.shape, key.shape)
        if self._ignores_query_mask():
            by_name.pop("query_mask", None)
        mask = combine_masks(*by_name.values())
        penalty = self._penalty(mask, scores, query.ndim)
        return masking.contract(mask, causal) if penalty is None else masking.lowered(mask, causal, penalty, *heads)

    @nn.nowrap
    def _heads(self, query: Array, key: Array, value: Array, over: axes.Axes) -> tuple[Array, Array, Array]:
        """The three as `[*B, length, heads, head dim]`."""
        raise NotImplementedError

    @nn.nowrap
    def _merge_heads(self, heads: Array, query: Array, masks: _Masks) -> Array:
        """The output of the layer, from `[.., N, V]`."""
        raise NotImplementedError

    @nn.nowrap
    def _merge_scores(self, weights: Array) -> Array:
        """The scores of the layer, from `[*B, N, T, S]`."""
        return weights

    @nn.nowrap
    def _score(self, dim: int) -> dict[str, Any]:
        """The arguments `score` and `scale` of `attn.attend`, for queries with `dim` channels."""
        del dim
        return {}

    @nn.nowrap
    def _ignores_query_mask(self) -> bool:
        """Whether a masked query attends all the same, in the layer's version of Keras."""
        raise NotImplementedError

    @nn.nowrap
    def _penalty(self, mask: Mask | None, scores: bool, rank: int) -> float | None:
        """By how much the layer's version of Keras lowers masked scores; None keeps the contract of `attn.attend`."""
        raise NotImplementedError


def _weights(query: Array, key: Array, value: Array, **options: Any) -> Array:
    return attention_weights(query, key, value, after_dropout=True, **options)
