"""Text classifiers: embedding, a body of attention, convolution or recurrence, mean pooling, logits."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from attn.kernels.selection import Implementation
from attn.layers import flags, keras
from attn.layers.dense import Dropout, cast, promoting
from attn.layers.initializers import glorot_uniform
from attn.models import bodies
from attn.positions import KINDS, RELATIVE, Relative, rotary, sinusoidal
from attn.score_mods import alibi, t5_relative_bias
from attn.shapes import Array, Logits, Tokens, Valid

PADDING = 0
WITH_ATTENTION = ("attention", "multi_head", "transformer")
WITHOUT_ATTENTION = ("convolution", "recurrent")
BODIES = (*WITH_ATTENTION, *WITHOUT_ATTENTION)
_SIZES = (
    "vocabulary_size",
    "max_length",
    "embed_dim",
    "num_layers",
    "num_heads",
    "key_dim",
    "feedforward_dim",
    "kernel_size",
)
_HEADLESS = ("attention", *WITHOUT_ATTENTION)
_WITH_OUTPUT_DIMS = ("multi_head", *WITHOUT_ATTENTION)
_T5_BUCKETS = 32


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """The architecture of a classifier.

    Attributes:
      body: the layers between the embedding and the pooling, `num_layers` of them. "attention": Keras' Attention with
        `use_scale=True`, which has one head of the embedding's size. "multi_head": MultiHeadAttention. "transformer":
        TransformerBlock. "convolution" and "recurrent": the layers of `attn.models.bodies`, which have no attention.
      vocabulary_size: the number of tokens; token 0 is padding.
      max_length: the number of positions of "learned".
      num_classes: the number of classes.
      embed_dim: the size of an embedding.
      num_layers: the number of layers of the body.
      num_heads: the number of heads of each layer; 1 for "attention", and for the bodies without attention.
      key_dim: the channels of each head; `embed_dim` for the same bodies.
      output_dims: the size of each layer's output. "attention" and "transformer" ignore it.
      feedforward_dim: for "transformer", the size of the hidden layer. The other bodies ignore it.
      kernel_size: for "convolution", the number of inputs that an output reads. The other bodies ignore it.
      cell: for "recurrent", one of `attn.models.bodies.CELLS`. The other bodies ignore it.
      positions: one of `attn.positions.KINDS`. "learned" and the two sinusoidal tables are added to the embeddings; "rotary",
        "alibi" and "t5" act inside of the attention, and need a body that projects to heads.
      dropout_rate: the rate for the output of each sub-layer of the body.
      mask_padding: whether padding is masked in the attention, read as zeros by a convolution and skipped by a recurrence; and
        left out of the mean.
      implementation: that of the attention, as in `attn.attend`.
      dtype: the dtype of activations and products between the embedding and the pooling. Parameters, softmax, the statistics
        of LayerNorm, pooling and logits are float32 in any case.

    Raises:
      ValueError: one line with the field, its value and the rule.
    """

    body: Literal["attention", "multi_head", "transformer", "convolution", "recurrent"]
    vocabulary_size: int
    max_length: int
    num_classes: int
    embed_dim: int
    num_layers: int
    num_heads: int
    key_dim: int
    output_dims: tuple[int, ...]
    feedforward_dim: int
    positions: str
    dropout_rate: float
    mask_padding: bool
    kernel_size: int = 5
    cell: Literal["gru", "lstm"] = "gru"
    implementation: Implementation = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"

    trimmed_eighths = (4, 6, 8)  # of max_length: to which a training step may cut off padding

    def __post_init__(self):
        flags.check_implementation(self.implementation)
        self._check_names()
        self._check_sizes()
        if self.num_classes < 2:
            raise ValueError(f"num_classes={self.num_classes} is less than 2")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate={self.dropout_rate} is not in [0, 1)")
        if self.dtype == "float16":
            raise ValueError("dtype='float16' would need a scaled loss: its range is too small; bfloat16 has that of float32")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype={self.dtype!r} is neither 'float32' nor 'bfloat16'")
        self._check_positions()

    def _check_names(self):
        for field, names in (("body", BODIES), ("cell", bodies.CELLS)):
            if getattr(self, field) not in names:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {', '.join(names)}")

    def _check_sizes(self):
        for field in _SIZES:
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} is not positive")
        if self.body in _HEADLESS and (self.num_heads, self.key_dim) != (1, self.embed_dim):
            raise ValueError(
                f"num_heads={self.num_heads}, key_dim={self.key_dim}: body {self.body!r} has no projections, "
                f"so num_heads is 1 and key_dim is embed_dim={self.embed_dim}"
            )
        if self.body in _WITH_OUTPUT_DIMS and (len(self.output_dims) != self.num_layers or min(self.output_dims) < 1):
            raise ValueError(f"output_dims={self.output_dims} must be num_layers={self.num_layers} positive sizes")

    @property
    def layer_dtype(self) -> DTypeLike | None:
        """The field `dtype` of the layers. None is float32, and float64 where JAX computes in it."""
        return None if self.dtype == "float32" else jnp.bfloat16

    @property
    def largest_activation(self) -> int:
        """The entries of the largest array of a layer for one text: the attention weights, or else the outputs."""
        if self.body in WITHOUT_ATTENTION:
            return self.max_length * max(self.output_dims)
        return self.num_heads * self.max_length**2

    def _check_positions(self):
        if self.positions not in KINDS:
            raise ValueError(f"positions={self.positions!r} is not one of {', '.join(KINDS)}")
        if self.positions in RELATIVE and self.body in _HEADLESS:
            raise ValueError(
                f"positions={self.positions!r} acts inside of projected heads: body {self.body!r} has no projections"
            )
        if self.positions == "rotary" and self.key_dim % 2:
            raise ValueError(f"key_dim={self.key_dim} is odd: positions='rotary' rotates pairs of channels")
        if self.positions in ("sinusoidal", "sinusoidal_split") and self.embed_dim % 2:
            raise ValueError(f"embed_dim={self.embed_dim} is odd: positions={self.positions!r} pairs each sine with a cosine")


class Classifier(flags.WithFlags):
    """A text classifier. The four models of the blog post are configurations of it; see `configs/`.

    Attributes:
      config: the architecture.
    """

    config: ClassifierConfig

    @nn.compact
    def __call__(self, tokens: Tokens, *, deterministic: flags.Flag | None = None, dropout_rate: Array | None = None) -> Logits:
        """Classifies texts.

        Args:
          tokens: integers `[*B, T]`.
          deterministic: False applies dropout, and needs the rng named "dropout". None means the field, or True.
          dropout_rate: a scalar array in [0, 1), which is not checked, in place of the config's rate: one program serves models
            that differ in it. Without effect if the config's rate is 0.

        Returns:
          Logits `[*B, C]`, float32 whatever the `dtype`. With `mask_padding`, a text that is all padding is pooled to 0, so its
          logits are the last bias.
        """
        config = self.config
        valid = tokens != PADDING if config.mask_padding else None
        learned = config.max_length if config.positions == "learned" else None
        sizes = config.vocabulary_size, config.embed_dim, learned
        x = keras.TokenAndPositionEmbedding(*sizes, dtype=config.layer_dtype, name="embedding")(tokens)
        if config.positions in ("sinusoidal", "sinusoidal_split"):
            table = sinusoidal(*x.shape[-2:], interleaved=config.positions == "sinusoidal")
            (x,) = cast(config.layer_dtype, promoting(jnp.add, x, table.reshape((1,) * (x.ndim - 2) + table.shape)))
        position, flag = self._relative(), flags.resolve_deterministic(self, deterministic)
        rate = config.dropout_rate if dropout_rate is None or config.dropout_rate == 0 else dropout_rate
        for index in range(config.num_layers):
            x = self._layer(index, x, valid, position, rate, flag)
        if config.dtype == "bfloat16":
            x = x.astype(jnp.float32)  # bfloat16 has no 257, a count of tokens, and few logits between 0.5 and 1
        pooled = mean_pool(x, valid) if x.ndim > tokens.ndim else x
        return promoting(nn.Dense(config.num_classes, kernel_init=glorot_uniform(), name="logits"), pooled)

    @nn.nowrap
    def _relative(self) -> Relative | None:
        """What the positions change inside of attention. All layers share T5's table of biases (Raffel et al. 2020, 2.1)."""
        config = self.config
        if config.positions == "rotary":
            return Relative(rotate=rotary)
        if config.positions == "alibi":
            return Relative(score_mod=alibi(config.num_heads))
        if config.positions == "t5":
            initial = nn.initializers.normal(config.embed_dim**-0.5)  # as in the authors' code
            return Relative(score_mod=t5_relative_bias(self.param("relative_bias", initial, (_T5_BUCKETS, config.num_heads))))
        return None

    @nn.nowrap
    def _layer(
        self,
        index: int,
        x: Array,
        valid: Valid | None,
        position: Relative | None,
        rate: float | Array,
        deterministic: flags.Flag,
    ) -> Array:
        """`[*B, T, D]` to `[*B, T, D]`. The last layer may return its mean over the positions, `[*B, D]`, which is faster."""
        config, name = self.config, f"{self.config.body}_{index}"
        if config.body == "transformer":
            block = keras.TransformerBlock(
                config.num_heads,
                config.key_dim,
                config.feedforward_dim,
                rate,
                implementation=config.implementation,
                dtype=config.layer_dtype,
                name=name,
            )
            return block(x, value_mask=valid, position=position, deterministic=deterministic)
        if config.body in WITHOUT_ATTENTION:
            size = config.output_dims[index]
            if config.body == "convolution":
                layer = bodies.Convolution(size, config.kernel_size, dtype=config.layer_dtype, name=name)
            else:
                layer = bodies.Recurrence(size, config.cell, dtype=config.layer_dtype, name=name)
            return Dropout(rate, deterministic=deterministic)(layer(x, valid))
        options: dict[str, Any] = {"value_mask": valid}
        if config.body == "multi_head":
            layer = keras.MultiHeadAttention(
                config.num_heads,
                config.key_dim,
                output_shape=config.output_dims[index],
                attention_axes=-2,
                implementation=config.implementation,
                dtype=config.layer_dtype,
                name=name,
            )
            options["position"] = position
        else:
            layer = keras.Attention(use_scale=True, implementation=config.implementation, dtype=config.layer_dtype, name=name)
        deterministic = True if config.dropout_rate == 0 else deterministic
        if index == config.num_layers - 1 and deterministic is True:
            return layer.mean(x, x, over=valid, **options)
        return Dropout(rate, deterministic=deterministic)(layer(x, x, **options))


def mean_pool(x: Array, valid: Valid | None) -> Array:
    """The mean over the positions, `[*B, T, D]` to `[*B, D]`.

    Args:
      x: `[*B, T, D]`.
      valid: bool `[*B, T]`: the positions that count; the mean is 0 where there are none. None means all.
    """
    if valid is None:
        return jnp.mean(x, axis=-2)
    total = jnp.sum(jnp.where(valid[..., None], x, 0), axis=-2)
    return total / jnp.maximum(jnp.sum(valid, axis=-1, keepdims=True), 1).astype(total.dtype)
