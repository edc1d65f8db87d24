"""Text classifiers over n-grams: a number for each of them, and attention that weighs those of a text."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from attn.attention import attend
from attn.kernels.selection import Implementation
from attn.layers import flags
from attn.layers.dense import Dropout
from attn.shapes import Array, Logits, Tokens

BODIES = ("ngram_linear", "ngram_attention")
LOGITS = ("tied", "own", "context")
PADDING = 0
BUCKETS = 16
_FIRST = 4  # ids of the bucket that is nearest to an end of the text
_SCALE = 0.3  # log-count ratios as values then give margins of the right size; trained, it doubles and learns texts by heart
_SOFTENED = 0.5  # the power of the number of n-grams by which their sum is divided
_RELEVANCE = 10.0  # a factor of the numbers for relevance, which are small, so that relative steps move the logits enough
_LEAST = {"vocabulary_size": 2, "max_length": 1, "num_classes": 2, "num_heads": 1, "kernel_size": 1, "context_size": 0}


@dataclasses.dataclass(frozen=True)
class NgramConfig:
    """The architecture of a classifier over n-grams.

    Attributes:
      body: "ngram_linear" weighs all n-grams of a text equally. "ngram_attention" weighs them by softmax attention.
      vocabulary_size: the number of ids; id 0 is padding, the last `context_size` ones are words of context, and each other
        one is an n-gram or a bucket of hashed n-grams.
      max_length: the number of ids of a text.
      num_classes: the number of classes.
      num_heads: the number of attention heads, whose outputs are averaged; each has attention logits of its own.
      logits: what the attention logit of an n-gram is. "tied": a number for how far it is from the end of the text, plus one
        for how far from the beginning, `BUCKETS` of each for all n-grams. "own": a number for each n-gram. "context": that of
        "tied", plus 10 times the mean relevance of the words around it; each word of context has a number, its relevance.
      kernel_size: with "context", the number of ids around a place, with its own, and the relevance of those is averaged that
        are words of context. An even number has one more after the place than before it.
      context_size: with "context", the number of words of context, and 0 otherwise. They have no values and no weights.
      dropout_rate: the rate at which ids, of n-grams and of context, are left out of a text.
      implementation: that of the attention, as in `attn.attend`.

    Raises:
      ValueError: one line with the field, its value and the rule.
    """

    body: Literal["ngram_linear", "ngram_attention"]
    vocabulary_size: int
    max_length: int
    num_classes: int
    num_heads: int
    logits: Literal["tied", "own", "context"]
    dropout_rate: float
    kernel_size: int = 25
    context_size: int = 0
    implementation: Implementation = "auto"

    mask_padding = True  # always: how many n-grams a text has differs more than its length in words
    trimmed_eighths = (2, 4, 8)  # of max_length: to which a training step may cut off padding

    def __post_init__(self):
        flags.check_implementation(self.implementation)
        if self.body not in BODIES:
            raise ValueError(f"body={self.body!r} is not one of {', '.join(BODIES)}")
        if self.logits not in LOGITS:
            raise ValueError(f"logits={self.logits!r} is not one of {', '.join(LOGITS)}")
        for field, least in _LEAST.items():
            value = getattr(self, field)
            if type(value) is not int or value < least:
                raise ValueError(f"{field}={value!r} is not an integer of at least {least}")
        reads = self.body == "ngram_attention" and self.logits == "context"
        if (self.context_size > 0) != reads:
            rule = "is not positive" if reads else "is not 0"
            raise ValueError(f"context_size={self.context_size} {rule} with body={self.body!r} and logits={self.logits!r}")
        if self.vocabulary_size < 2 + self.context_size:
            raise ValueError(f"vocabulary_size={self.vocabulary_size} is less than {2 + self.context_size}, with context_size")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate={self.dropout_rate} is not in [0, 1)")

    @property
    def ngrams(self) -> int:
        """The number of n-grams, whose ids are 1 to this."""
        return self.vocabulary_size - 1 - self.context_size

    @property
    def largest_activation(self) -> int:
        """The entries of the largest array for one text: the attention weights of one query of each head."""
        return self.num_heads * self.max_length


class NgramClassifier(flags.WithFlags):
    """A text classifier over n-grams.

    The margin of a text with the n-grams x_1 … x_P is 0.3 · P^½ · Σ_p a_p v(x_p) + b, with one number v for each n-gram and a
    bias b. The weights a are 1 / P for "ngram_linear", and the softmax of the attention logits for
    "ngram_attention", which computes the same as "ngram_linear" at first, since the logits start at 0. With two classes
    the logits of the classes are minus and plus half of the margin; with C > 2, each n-gram has C numbers.

    Attributes:
      config: the architecture.
    """

    config: NgramConfig

    @nn.compact
    def __call__(self, tokens: Tokens, *, deterministic: flags.Flag | None = None, dropout_rate: Array | None = None) -> Logits:
        """Classifies texts.

        Args:
          tokens: integers `[*B, T]`, the ids of the n-grams of each text, and of its words of context, in their order, 0 behind
            the last one. They are not checked.
          deterministic: False leaves out ids at random, and needs the rng named "dropout". None means the field, or True.
          dropout_rate: a scalar array in [0, 1), which is not checked, in place of the config's rate. Without effect if the
            config's rate is 0.

        Returns:
          Logits `[*B, C]`, float32. Those of a text without n-grams are the bias.
        """
        config, tokens = self.config, jnp.asarray(tokens).astype(jnp.int32)  # a narrower type cannot hold the number of n-grams
        size = 1 if config.num_classes == 2 else config.num_classes
        table = self.param("values", nn.initializers.zeros, (config.ngrams, size))
        bias = self.param("bias", nn.initializers.zeros, (size,))
        kept = self._kept(tokens, deterministic, dropout_rate)
        weighed = kept & (tokens <= config.ngrams)
        values = jnp.where(weighed[..., None], rows(table, tokens, 1), 0)
        count = jnp.maximum(jnp.sum(weighed, axis=-1, keepdims=True), 1).astype(values.dtype)
        linear = config.body == "ngram_linear"
        mean = jnp.sum(values, axis=-2) / count if linear else self._attend(tokens, kept, weighed, values)
        margin = _SCALE * mean * count ** (1 - _SOFTENED) + bias
        return jnp.concatenate([-margin / 2, margin / 2], axis=-1) if size == 1 else margin

    @nn.nowrap
    def _kept(self, tokens: Tokens, deterministic: flags.Flag | None, dropout_rate: Array | None) -> Array:
        """Which ids are no padding and not left out by dropout, bool `[*B, T]`."""
        rate = self.config.dropout_rate if dropout_rate is None or self.config.dropout_rate == 0 else dropout_rate
        dropout = Dropout(rate, deterministic=flags.resolve_deterministic(self, deterministic))
        return (tokens != PADDING) & (dropout(jnp.ones(tokens.shape, jnp.float32)) > 0)

    @nn.nowrap
    def _attend(self, tokens: Tokens, kept: Array, weighed: Array, values: Array) -> Array:
        """The values under the weights of the heads, and the mean of these, `[*B, T, V]` to `[*B, V]`."""
        heads, ngrams, context_size = self.config.num_heads, self.config.ngrams, self.config.context_size
        logits = self._numbers("logits", ngrams, tokens, 1) if self.config.logits == "own" else self._tied_logits(tokens)
        if self.config.logits == "context":
            relevance = self._numbers("relevance", context_size, tokens, ngrams + 1)
            logits += _RELEVANCE * moving_mean(relevance, kept & ~weighed, self.config.kernel_size)
        query = jnp.ones((*tokens.shape[:-1], 1, heads, 1), values.dtype)
        value = jnp.broadcast_to(values[..., None, :], (*values.shape[:-1], heads, values.shape[-1]))
        found = attend(
            query,
            logits[..., None],
            value,
            scale=1.0,
            mask=weighed[..., None, None, :],
            implementation=self.config.implementation,
        )
        return jnp.mean(found[..., 0, :, :], axis=-2)

    @nn.nowrap
    def _numbers(self, name: str, size: int, tokens: Tokens, first: int) -> Array:
        """A number of each of `size` ids from `first` on, for each head, 0 at first, `[*B, T, N]`."""
        return rows(self.param(name, nn.initializers.zeros, (size, self.config.num_heads)), tokens, first)

    @nn.nowrap
    def _tied_logits(self, tokens: Tokens) -> Array:
        """The numbers of the places of n-grams, `[*B, T, N]`."""
        from_end, from_start = (
            self.param(name, nn.initializers.zeros, (BUCKETS, self.config.num_heads))
            for name in ("logits_from_end", "logits_from_start")
        )
        position = jnp.arange(tokens.shape[-1])
        length = jnp.sum(tokens != PADDING, axis=-1, keepdims=True)
        behind = bucket(jnp.maximum(length - 1 - position, 0))
        return jnp.asarray(from_end)[behind] + jnp.asarray(from_start)[bucket(position)]


def rows(table: Any, tokens: Tokens, first: int) -> Array:
    """The row of each id, of which that of `first` is the first, `[*B, T, N]`. Other ids have the first or the last row."""
    return jnp.asarray(table)[jnp.clip(tokens - first, 0, len(table) - 1)]


def moving_mean(x: Array, kept: Array, size: int) -> Array:
    """The mean over the places around each place that are kept, `[*B, T, N]`; 0 where there are none.

    Args:
      x: `[*B, T, N]`.
      kept: bool `[*B, T]`.
      size: the number of places, with the one in the middle, at least 1; of an even number, one more is after it than before.
    """
    before, after = (min(places, x.shape[-2]) for places in ((size - 1) // 2, size // 2))

    def window_sum(x: Array) -> Array:
        total = jnp.cumsum(jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(before + 1, after), (0, 0)]), axis=-2)
        return total[..., before + after + 1 :, :] - total[..., : -(before + after + 1), :]

    count = window_sum(kept[..., None].astype(x.dtype))
    return window_sum(jnp.where(kept[..., None], x, 0)) / jnp.maximum(count, 1)


def bucket(distance: Array) -> Array:
    """The bucket of a number of ids: below 4 is 0, and each bound is √2 times the one before it, up to 512."""
    bounds = jnp.ceil(_FIRST * 2 ** (jnp.arange(BUCKETS - 1) / 2)).astype(jnp.int32)
    return jnp.searchsorted(bounds, distance, side="right").astype(jnp.int32)
