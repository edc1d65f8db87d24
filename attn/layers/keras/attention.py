"""`keras.layers.Attention` and `keras.layers.AdditiveAttention`: attention over the inputs as they are, without projections."""

import math
from typing import Any, ClassVar, Literal

import jax
from flax import linen as nn
from jax import numpy as jnp

from attn import scores
from attn.layers.initializers import symmetric_uniform
from attn.layers.keras import axes
from attn.layers.keras.base import AttentionLayer
from attn.layers.keras.masking import Version
from attn.shapes import Array, Mask


class _SingleHead(AttentionLayer):
    """What the two layers share. A subclass also has the field `causal`."""

    SCORES_AFTER_DROPOUT: ClassVar[bool] = True
    attention_axes: ClassVar[int] = -2

    @nn.nowrap
    def _heads(self, query: Array, key: Array, value: Array, over: axes.Axes) -> tuple[Array, Array, Array]:
        return query[..., None, :], key[..., None, :], value[..., None, :]

    @nn.nowrap
    def _merge_heads(self, heads: Array, query: Array, masks: Any) -> Array:
        output = heads[..., 0, :]
        return output if masks.query_mask is None else jnp.where(jnp.asarray(masks.query_mask)[..., None], output, 0)

    @nn.nowrap
    def _merge_scores(self, weights: Array) -> Array:
        return weights[..., 0, :, :]

    @nn.nowrap
    def _ignores_query_mask(self) -> bool:
        layer: Any = self
        return layer.version is not None  # Keras lets a masked query attend, and sets its output to 0

    @nn.nowrap
    def _penalty(self, mask: Mask | None, scores: bool, rank: int) -> float | None:
        layer: Any = self
        return None if layer.version is None else 1e9


class Attention(_SingleHead):
    """`keras.layers.Attention` (2.11 to 3.15): softmax(score(q, k)) v, without the factor 1/√D.

    Attributes:
      use_scale: whether the score is multiplied by a trained scalar, which starts at 1.
      score_mode: "dot" is q · k. "concat" is concat_score_weight · Σ tanh(scale · (q + k)), a sum in spite of its name, with
        one more trained scalar that starts at 1.
      dropout: the rate for the weights.
      causal: the constructor's argument of Keras 2.11; later versions have `use_causal_mask` of the call.
      version: "2.11" or "3.15" reproduces what that version gives for a query without a key. None keeps our contract: 0.

    Raises:
      ValueError: an unknown `score_mode` or `version`, or a `dropout` outside of [0, 1).
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

    @nn.nowrap
    def _score(self, dim: int) -> dict[str, Any]:
        scale: Any = self.param("scale", nn.initializers.ones, ()) if self.use_scale else 1.0
        if self.score_mode == "dot":
            return {"score": "dot", "scale": scale}
        weight = self.param("concat_score_weight", nn.initializers.ones, ())
        return {"score": scores.concat(weight, scale)}


class AdditiveAttention(_SingleHead):
    """`keras.layers.AdditiveAttention` (2.11 to 3.15): the score is scale · tanh(q + k).

    Bahdanau et al. 2015 (section A.1.2), without the projections of query and key.

    Attributes:
      use_scale: whether `scale` is a trained vector `[D]`; otherwise it is a vector of ones.
      dropout, causal, version: as in `Attention`.

    Raises:
      ValueError: an unknown `version`, or a `dropout` outside of [0, 1).
    """

    use_scale: bool = True
    dropout: float = 0.0
    causal: bool = False
    version: Version | None = None

    @nn.nowrap
    def _score(self, dim: int) -> dict[str, Any]:
        if not self.use_scale:
            return {"score": scores.additive(jnp.ones(dim))}
        init: jax.nn.initializers.Initializer = symmetric_uniform(math.sqrt(3 / dim))  # Glorot of one axis: both fans are D
        return {"score": scores.additive(self.param("scale", init, (dim,)))}
