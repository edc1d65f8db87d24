"""The encoder-decoder transformer (Vaswani et al. 2017), with a decoder that computes each token once."""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from attn.attention import attend, attention_weights
from attn.kernels.selection import Implementation
from attn.layers import flags
from attn.models.seq2seq.base import KEPT, Drop, Seq2Seq
from attn.models.seq2seq.tokens import PADDING, shifted
from attn.positions import rotary, sinusoidal
from attn.shapes import Array, Key, Mask, Query, Tokens, Valid, Value

POSITIONS = ("none", "sinusoidal", "rotary")


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The architecture of a `TransformerSeq2Seq`.

    Attributes:
      body: "transformer_seq2seq".
      vocabulary_size: the number of tokens, of source and target together; see `tokens` for the first four.
      max_length: the length of a source; the parameters do not depend on it.
      embed_dim: the size of an embedding, and of every layer's output.
      num_layers: the number of layers of the encoder, and of the decoder.
      num_heads: the number of heads of each attention.
      key_dim: the channels of each head.
      feedforward_dim: the size of the hidden layer behind each attention.
      positions: "sinusoidal" is added to the embeddings; "rotary" turns queries and keys of the self-attention; "none".
      dropout_rate: the rate for the embeddings and for the output of each sub-layer.
      implementation: that of the attention, as in `attn.attend`.

    Raises:
      ValueError: one line with the field, its value and the rule.
    """

    body: Literal["transformer_seq2seq"]
    vocabulary_size: int
    max_length: int
    embed_dim: int
    num_layers: int
    num_heads: int
    key_dim: int
    feedforward_dim: int
    positions: str
    dropout_rate: float
    implementation: Implementation = "auto"

    mask_padding = True  # always
    trimmed_eighths = (4, 6, 8)  # of max_length: to which a training step may cut off padding

    def __post_init__(self):
        flags.check_implementation(self.implementation)
        for field in ("vocabulary_size", "max_length", "embed_dim", "num_layers", "num_heads", "key_dim", "feedforward_dim"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} is not positive")
        if self.positions not in POSITIONS:
            raise ValueError(f"positions={self.positions!r} is not one of {', '.join(POSITIONS)}")
        for kind, field in (("sinusoidal", "embed_dim"), ("rotary", "key_dim")):
            if self.positions == kind and getattr(self, field) % 2:
                raise ValueError(f"{field}={getattr(self, field)} is odd: positions={kind!r} pairs its entries")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate={self.dropout_rate} is not in [0, 1)")

    @property
    def largest_activation(self) -> int:
        """The entries of the largest array of a layer for one pair: the attention weights of queries as long as a source."""
        return self.num_heads * self.max_length**2


class Pair(NamedTuple):
    """Projected keys and values, `[*B, S, N, H]` each."""

    key: Key
    value: Value


class Memory(NamedTuple):
    """What the decoder reads of a source: for each of its layers the keys and values, and bool `[*B, S]`."""

    layers: tuple[Pair, ...]
    valid: Valid


class Heads(nn.Module):
    """The projections of one attention, apart from each other: keys and values are computed once and kept.

    Attributes:
      config: the architecture.
    """

    config: TransformerConfig

    def setup(self):
        heads = self.config.num_heads, self.config.key_dim
        self.query, self.key, self.value = nn.DenseGeneral(heads), nn.DenseGeneral(heads), nn.DenseGeneral(heads)
        self.output = nn.DenseGeneral(self.config.embed_dim, axis=(-2, -1))

    def asking(self, x: Array, positions: Array | None) -> Query:
        """`[*B, T, D]` to queries; with positions `[T]`, turned by them."""
        return _turned(self.query(x), positions)

    def asked(self, x: Array, positions: Array | None) -> Pair:
        """`[*B, S, D]` to keys, turned by their positions if there are any, and values."""
        return Pair(_turned(self.key(x), positions), self.value(x))

    def __call__(self, query: Query, pair: Pair, *, mask: Mask | None = None, positions: Array | None = None) -> Array:
        """Attends. With positions `[T]` of the queries it is causal: the keys are at 0, 1, 2, …"""
        order = {} if positions is None else {"causal": True, "query_positions": positions}
        return self.output(attend(query, *pair, mask=mask, implementation=self.config.implementation, **order))


class FeedForward(nn.Module):
    """Two dense layers (section 3.3).

    Attributes:
      config: the architecture.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[.., D]` to `[.., D]`."""
        hidden = nn.relu(nn.Dense(self.config.feedforward_dim, name="hidden")(x))
        return nn.Dense(self.config.embed_dim, name="output")(hidden)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward layer, with the normalization before each of them (Xiong et al. 2020).

    Attributes:
      config: the architecture.
    """

    config: TransformerConfig

    def setup(self):
        self.norms = [nn.LayerNorm() for _ in range(2)]
        self.attention, self.feedforward = Heads(self.config), FeedForward(self.config)

    def __call__(self, x: Array, valid: Valid, rotations: Array | None, drop: Drop) -> Array:
        """`[*B, S, D]` to `[*B, S, D]`."""
        y = self.norms[0](x)
        query, pair = self.attention.asking(y, rotations), self.attention.asked(y, rotations)
        x += drop(self.attention(query, pair, mask=valid[..., None, None, :]))
        return x + drop(self.feedforward(self.norms[1](x)))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention over the source, and a feed-forward layer.

    Attributes:
      config: the architecture.
    """

    config: TransformerConfig

    def setup(self):
        self.norms = [nn.LayerNorm() for _ in range(3)]
        self.attention, self.cross = Heads(self.config), Heads(self.config)
        self.feedforward = FeedForward(self.config)

    def __call__(
        self, x: Array, source: Pair, valid: Valid, positions: Array, cache: Pair | None, drop: Drop
    ) -> tuple[Array, Pair, Query]:
        """Decodes some tokens.

        Args:
          x: `[*B, T, D]`.
          source: the keys and values of the source, for this layer.
          valid: bool `[*B, S]`.
          positions: integers `[T]`, consecutive.
          cache: keys and values `[*B, U, N, H]` of the tokens before; None: there are none before.
          drop: dropout.

        Returns:
          `[*B, T, D]`; the keys and values with those of these tokens; and the queries to the source.
        """
        y = self.norms[0](x)
        rotations = positions if self.config.positions == "rotary" else None
        query, pair = self.attention.asking(y, rotations), self.attention.asked(y, rotations)
        if cache is not None:
            pair = Pair(
                *(lax.dynamic_update_slice_in_dim(old, new, positions[0], -3) for old, new in zip(cache, pair, strict=True))
            )
        x += drop(self.attention(query, pair, positions=positions))
        asking = self.cross.asking(self.norms[1](x), None)
        x += drop(self.cross(asking, source, mask=valid[..., None, None, :]))
        return x + drop(self.feedforward(self.norms[2](x))), pair, asking


class TransformerSeq2Seq(Seq2Seq):
    """The transformer: an encoder with self-attention, and a decoder with causal self-attention and attention over the source.

    The layers normalize their inputs, so that no warm-up is needed (Xiong et al. 2020, "On Layer Normalization in the
    Transformer Architecture"). Source and target share one table of embeddings.

    Attributes:
      config: the architecture.
    """

    config: TransformerConfig

    def setup(self):
        config = self.config
        self.embedding = nn.Embed(config.vocabulary_size, config.embed_dim)
        self.encoder = [EncoderLayer(config) for _ in range(config.num_layers)]
        self.decoder = [DecoderLayer(config) for _ in range(config.num_layers)]
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(), nn.LayerNorm()
        self.logits = nn.Dense(config.vocabulary_size)

    def start(self, memory: Memory, length: int) -> tuple[Pair, ...]:
        """Empty keys and values `[*B, length, N, H]` for each layer of the decoder."""
        return tuple(
            Pair(*(jnp.zeros((*x.shape[:-3], length, *x.shape[-2:]), x.dtype) for x in pair)) for pair in memory.layers
        )

    def step(self, memory: Memory, state: tuple[Pair, ...], token: Array, index: Array) -> tuple[tuple[Pair, ...], Array]:
        """One token, whose keys and values are added to those of the tokens before it.

        Args:
          memory: that of the source.
          state: the keys and values of the tokens before.
          token: integers `[*B]`, the last token, or the start.
          index: an integer, how many tokens were before it: its position.

        Returns:
          The state after it, and the logits of the next token `[*B, C]`.
        """
        positions = jnp.asarray(index, jnp.int32)[None]
        x, after = self._embedded(token[..., None], positions, state[0].key.shape[-3]), []
        for layer, pair, cache in zip(self.decoder, memory.layers, state, strict=True):
            x, cache, _ = layer(x, pair, memory.valid, positions, cache, KEPT)
            after.append(cache)
        return tuple(after), self._logits(x)[..., 0, :]

    def alignment(self, source: Tokens, target: Tokens) -> tuple[Array, ...]:
        """For each layer of the decoder, its weights `[*B, N, U, S]` over the source, for each target token."""
        memory = self.encode(source)
        _, asked = self._decoded(memory, shifted(target), KEPT)
        mask = memory.valid[..., None, None, :]
        return tuple(attention_weights(query, pair.key, mask=mask) for query, pair in zip(asked, memory.layers, strict=True))

    def _encode(self, source: Tokens, drop: Drop) -> Memory:
        positions = jnp.arange(source.shape[-1], dtype=jnp.int32)
        x, valid = drop(self._embedded(source, positions, source.shape[-1])), source != PADDING
        rotations = positions if self.config.positions == "rotary" else None
        for layer in self.encoder:
            x = layer(x, valid, rotations, drop)
        x = self.encoder_norm(x)
        return Memory(tuple(layer.cross.asked(x, None) for layer in self.decoder), valid)

    def _taught(self, memory: Memory, inputs: Tokens, drop: Drop) -> Array:
        return self._logits(self._decoded(memory, inputs, drop)[0])

    def _decoded(self, memory: Memory, inputs: Tokens, drop: Drop) -> tuple[Array, list[Query]]:
        """All tokens at once: `[*B, U, D]`, and each layer's queries to the source."""
        positions = jnp.arange(inputs.shape[-1], dtype=jnp.int32)
        x, asked = drop(self._embedded(inputs, positions, inputs.shape[-1])), []
        for layer, pair in zip(self.decoder, memory.layers, strict=True):
            x, _, query = layer(x, pair, memory.valid, positions, None, drop)
            asked.append(query)
        return x, asked

    def _embedded(self, tokens: Tokens, positions: Array, length: int) -> Array:
        """Embeddings times √D of tokens at positions below `length`, with their positions (sections 3.4 and 3.5)."""
        x = self.embedding(tokens) * self.config.embed_dim**0.5
        if self.config.positions != "sinusoidal":
            return x
        return x + sinusoidal(length, self.config.embed_dim)[positions].astype(x.dtype)

    def _logits(self, x: Array) -> Array:
        return self.logits(self.decoder_norm(x))


def _turned(x: Array, positions: Array | None) -> Array:
    return x if positions is None else rotary(x, positions)
