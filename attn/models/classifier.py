"""Text classifiers: embedding, a body of attention, mean pooling, logits."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from attn.layers import keras
from attn.layers.dense import Dropout
from attn.layers.initializers import glorot_uniform
from attn.positions import KINDS, RELATIVE, Relative, rotary, sinusoidal
from attn.score_mods import alibi, t5_relative_bias
from attn.shapes import Array, Logits, Tokens, Valid

PADDING = 0
_T5_BUCKETS = 32


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """What a classifier is. Sizes are positive; `__post_init__` raises ValueError with the field, the value and the rule.

    body: "attention" is `num_layers` of Keras' Attention(use_scale=True), which has one head as wide as the embedding;
    "multi_head" is `num_layers` of MultiHeadAttention, the i-th to `output_dims[i]` features; "transformer" is
    `num_layers` of TransformerBlock. positions is one of `attn.positions.KINDS`: "learned" and the sinusoidal tables are
    added to the embeddings, "rotary", "alibi" and "t5" are inside the attention of a body that projects to heads.
    dropout_rate drops the output of every sub-layer of the body. mask_padding hides padding (token 0) from the keys and
    from the pooling.
    """

    body: Literal["attention", "multi_head", "transformer"]
    vocabulary_size: int
    max_length: int
    num_classes: int
    embed_dim: int
    num_layers: int
    num_heads: int
    key_dim: int
    output_dims: tuple[int, ...]  # multi_head alone
    feedforward_dim: int  # transformer alone
    positions: str
    dropout_rate: float
    mask_padding: bool

    def __post_init__(self):
        if self.body not in ("attention", "multi_head", "transformer"):
            raise ValueError(f"body={self.body!r} is none of attention, multi_head, transformer")
        for field in ("vocabulary_size", "max_length", "embed_dim", "num_layers", "num_heads", "key_dim", "feedforward_dim"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} is not positive")
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes} is less than 2")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate={self.dropout_rate} is not in [0, 1)")
        if self.body == "attention" and (self.num_heads, self.key_dim) != (1, self.embed_dim):
            raise ValueError(
                f"num_heads={self.num_heads}, key_dim={self.key_dim}: body 'attention' has no projections, "
                f"so num_heads is 1 and key_dim is embed_dim={self.embed_dim}"
            )
        if self.body == "multi_head" and (len(self.output_dims) != self.num_layers or min(self.output_dims) < 1):
            raise ValueError(f"output_dims={self.output_dims} does not hold num_layers={self.num_layers} positive sizes")
        self._check_positions()

    def _check_positions(self):
        if self.positions not in KINDS:
            raise ValueError(f"positions={self.positions!r} is none of {', '.join(KINDS)}")
        if self.positions in RELATIVE and self.body == "attention":
            raise ValueError(f"positions={self.positions!r} is inside heads, and body 'attention' has no projections to them")
        if self.positions == "rotary" and self.key_dim % 2:
            raise ValueError(f"key_dim={self.key_dim} is odd: positions='rotary' turns pairs")
        if self.positions in ("sinusoidal", "sinusoidal_split") and self.embed_dim % 2:
            raise ValueError(f"embed_dim={self.embed_dim} is odd: positions={self.positions!r} has a cosine for each sine")


class Classifier(nn.Module):
    """The four models of the blog post are settings of this one; see `configs/`."""

    config: ClassifierConfig

    @nn.compact
    def __call__(self, tokens: Tokens, *, deterministic: bool = True) -> Logits:
        """int tokens `[*B, T]` to logits `[*B, C]`; the rng named "dropout" is needed unless `deterministic`.

        With mask_padding a review of nothing but padding pools to 0, so its logits are the bias of the last layer.
        """
        config = self.config
        valid = tokens != PADDING if config.mask_padding else None
        learned = config.max_length if config.positions == "learned" else None
        x = keras.TokenAndPositionEmbedding(config.vocabulary_size, config.embed_dim, learned, name="embedding")(tokens)
        if config.positions in ("sinusoidal", "sinusoidal_split"):
            x = x + sinusoidal(*x.shape[-2:], interleaved=config.positions == "sinusoidal")
        position = self._relative()
        for index in range(config.num_layers):
            x = self._layer(index, x, valid, position, deterministic)
        pooled = mean_pool(x, valid) if x.ndim > tokens.ndim else x
        return nn.Dense(config.num_classes, kernel_init=glorot_uniform(), name="logits")(pooled)

    def _relative(self) -> Relative | None:
        """What positions do inside attention. T5's biases are one table that all layers share (its section 2.1)."""
        config = self.config
        if config.positions == "rotary":
            return Relative(rotate=rotary)
        if config.positions == "alibi":
            return Relative(score_mod=alibi(config.num_heads))
        if config.positions == "t5":
            initial = nn.initializers.normal(config.embed_dim**-0.5)  # as the authors' own
            return Relative(score_mod=t5_relative_bias(self.param("relative_bias", initial, (_T5_BUCKETS, config.num_heads))))
        return None

    def _layer(self, index: int, x: Array, valid: Valid | None, position: Relative | None, deterministic: bool) -> Array:
        """`[*B, T, D]` to the same, or the last one at once to the mean over the positions, `[*B, D]`."""
        config, name = self.config, f"{self.config.body}_{index}"
        if config.body == "transformer":
            block = keras.TransformerBlock(
                config.num_heads, config.key_dim, config.feedforward_dim, config.dropout_rate, name=name
            )
            return block(x, value_mask=valid, position=position, deterministic=deterministic)
        options: dict[str, Any] = {"value_mask": valid}
        if config.body == "multi_head":
            layer = keras.MultiHeadAttention(
                config.num_heads, config.key_dim, output_shape=config.output_dims[index], attention_axes=-2, name=name
            )
            options["position"] = position
        else:
            layer = keras.Attention(use_scale=True, name=name)
        deterministic = deterministic or config.dropout_rate == 0
        if index == config.num_layers - 1 and deterministic:
            return layer.mean(x, x, over=valid, **options)
        return Dropout(config.dropout_rate, deterministic=deterministic)(layer(x, x, **options))


def mean_pool(x: Array, valid: Valid | None) -> Array:
    """`[*B, T, D]` to `[*B, D]`: the mean over the positions, or over the valid ones alone (0 where there is none)."""
    if valid is None:
        return jnp.mean(x, axis=-2)
    total = jnp.sum(jnp.where(valid[..., None], x, 0), axis=-2)
    return total / jnp.maximum(jnp.sum(valid, axis=-1, keepdims=True), 1)
