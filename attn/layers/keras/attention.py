"""`keras.layers.Attention` and `keras.layers.AdditiveAttention`: scores of what they are given, without projections."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import linen as nn
from jax import numpy as jnp

from attn import scores
from attn.dispatch import attend, attend_pooled, attention_weights
from attn.dropout import check_rate
from attn.initializers import symmetric_uniform
from attn.layers.keras import masking
from attn.layers.keras.masking import Version, checked
from attn.masks import attendable_keys, merge
from attn.shapes import Array, Valid


class _OfOneHead(nn.Module):
    """What both have in common. A subclass has the fields `dropout`, `causal` and `version`, and `_score`."""

    def __post_init__(self) -> None:
        module: Any = self
        masking.check_version(module.version)
        check_rate("dropout", module.dropout)
        super().__post_init__()

    def __call__(
        self,
        query: Array,
        value: Array,
        key: Array | None = None,
        *,
        query_mask: Valid | None = None,
        value_mask: Valid | None = None,
        use_causal_mask: bool = False,
        deterministic: bool = True,
    ) -> Array:
        """`[*B, T, D]`, `[*B, S, V]`, `[*B, S, D]` to `[*B, T, V]`.

        Args:
          query_mask: `[*B, T]`; the output of a masked query is 0.
          value_mask: `[*B, S]`, of the keys too.
          use_causal_mask: query t may attend to keys 0 … t, also where T ≠ S.
          deterministic: False drops weights, and needs the rng named "dropout".
        """
        output = self._attend(attend, query, value, key, query_mask, value_mask, use_causal_mask, deterministic)[..., 0, :]
        return output if query_mask is None else jnp.where(jnp.asarray(query_mask)[..., None], output, 0)

    def mean(
        self,
        query: Array,
        value: Array,
        key: Array | None = None,
        *,
        over: Valid | None = None,
        value_mask: Valid | None = None,
        use_causal_mask: bool = False,
        deterministic: bool = True,
    ) -> Array:
        """The mean over the queries of what a call returns, `[*B, V]`, in fewer products: see `attn.attend_pooled`.

        `over` `[*B, T]` says over which of them; 0 where it is over none. None: all.
        """
        over = None if over is None else checked("over", over, query.shape[:-1])
        pool = functools.partial(attend_pooled, query_weights=masking.mean_weights(over))
        return self._attend(pool, query, value, key, None, value_mask, use_causal_mask, deterministic)[..., 0, :]

    def attention_scores(
        self,
        query: Array,
        value: Array,
        key: Array | None = None,
        *,
        value_mask: Valid | None = None,
        use_causal_mask: bool = False,
        deterministic: bool = True,
    ) -> Array:
        """The weights `[*B, T, S]` after dropout, as Keras returns them (its MultiHeadAttention's are those before)."""
        weights = functools.partial(attention_weights, after_dropout=True)
        return self._attend(weights, query, value, key, None, value_mask, use_causal_mask, deterministic)[..., 0, :, :]

    @nn.compact
    def _attend(
        self,
        operator: Callable[..., Array],
        query: Array,
        value: Array,
        key: Array | None,
        query_mask: Valid | None,
        value_mask: Valid | None,
        use_causal_mask: bool,
        deterministic: bool,
    ) -> Array:
        module: Any = self
        mask = None if value_mask is None else attendable_keys(checked("value_mask", value_mask, value.shape[:-1]))
        if query_mask is not None:
            masked_queries = checked("query_mask", query_mask, query.shape[:-1])[..., None, :, None]
            mask = mask if module.version is not None else merge(mask, masked_queries)  # Keras attends, and drops the output
        query, value, key = (x[..., None, :] for x in (query, value, value if key is None else key))  # one head
        causal = use_causal_mask or module.causal
        if module.version is None:
            masks = masking.contract(mask, causal)
        else:
            masks = masking.lowered(mask, causal, 1e9, query, key)
        drop: dict[str, Any] = {}
        if module.dropout and not deterministic:
            drop = {"dropout_rate": module.dropout, "dropout_rng": self.make_rng("dropout")}
        return operator(query, key, value, **module._score(query.shape[-1]), **masks, **drop)


class Attention(_OfOneHead):
    """`keras.layers.Attention` (2.11 to 3.15): softmax(score(q, k)) v without 1/√d.

    score_mode "dot" is q · k, with `use_scale` times one trained scalar that starts at 1. "concat" is
    concat_score_weight · Σ tanh(scale · (q + k)): two trained scalars that start at 1 (the second where `use_scale`), a sum
    in spite of its name. `causal` is the constructor's argument of 2.11, since then `use_causal_mask` of the call.
    """

    use_scale: bool = False
    score_mode: Literal["dot", "concat"] = "dot"
    dropout: float = 0.0
    causal: bool = False
    version: Version | None = None

    def __post_init__(self) -> None:
        if self.score_mode not in ("dot", "concat"):
            raise ValueError(f"score_mode={self.score_mode!r} is neither 'dot' nor 'concat'")
        super().__post_init__()

    def _score(self, dim: int) -> dict[str, Any]:
        del dim
        scale: Any = self.param("scale", nn.initializers.ones, ()) if self.use_scale else 1.0
        if self.score_mode == "dot":
            return {"score": "dot", "scale": scale}
        weight = self.param("concat_score_weight", nn.initializers.ones, ())
        return {"score": scores.concat(weight, scale)}


class AdditiveAttention(_OfOneHead):
    """`keras.layers.AdditiveAttention` (2.11 to 3.15): scores scale · tanh(q + k), with a trained vector scale `[D]`.

    Bahdanau et al. 2015 (section A.1.2) without the projections of query and key. `use_scale=False` is a vector of ones.
    """

    use_scale: bool = True
    dropout: float = 0.0
    causal: bool = False
    version: Version | None = None

    def _score(self, dim: int) -> dict[str, Any]:
        if not self.use_scale:
            return {"score": scores.additive(jnp.ones(dim))}
        init: jax.nn.initializers.Initializer = symmetric_uniform(math.sqrt(3 / dim))  # glorot of one axis: both fans are D
        return {"score": scores.additive(self.param("scale", init, (dim,)))}
