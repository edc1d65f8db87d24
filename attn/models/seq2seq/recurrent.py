"""A recurrent encoder, and a GRU decoder that attends to the encoder's outputs (Bahdanau et al. 2015), or does not."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from attn import scores
from attn.attention import attend, attention_weights
from attn.kernels.manual_axes import match_varying
from attn.kernels.selection import Implementation
from attn.layers import flags
from attn.models.seq2seq.base import Drop, Seq2Seq
from attn.models.seq2seq.tokens import PADDING, shifted
from attn.shapes import Array, Tokens, Valid

CELLS = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell, "simple": nn.SimpleCell}
SCORES = ("none", "dot", "scaled_dot", "cosine", "additive", "bilinear")
_TEMPERATURE = 0.1  # of a new "cosine": at 1 its scores are in [-1, 1], and no token could have most of the weight


@dataclasses.dataclass(frozen=True)
class RecurrentConfig:
    """The architecture of a `RecurrentSeq2Seq`.

    Attributes:
      body: "recurrent_seq2seq".
      vocabulary_size: the number of tokens, of source and target together; see `tokens` for the first four.
      max_length: the length of a source; the parameters do not depend on it.
      embed_dim: the size of an embedding.
      hidden_dim: the size of an encoder's output and of the decoder's state. With `bidirectional`, each direction has half.
      encoder_cell: "gru" (Cho et al. 2014), "lstm" (Hochreiter and Schmidhuber 1997) or "simple" (Elman 1990).
      bidirectional: whether a second encoder reads the source from its end.
      score: how the decoder's state scores an output of the encoder, all in `attn.scores`. "none" is no attention: the
        context is the encoder's last state at each step (Cho et al. 2014, section 2.2).
      dropout_rate: the rate for embeddings, and for the features from which the logits are computed.
      implementation: that of the attention, as in `attn.attend`.

    Raises:
      ValueError: one line with the field, its value and the rule.
    """

    body: Literal["recurrent_seq2seq"]
    vocabulary_size: int
    max_length: int
    embed_dim: int
    hidden_dim: int
    encoder_cell: str
    bidirectional: bool
    score: str
    dropout_rate: float
    implementation: Implementation = "auto"

    mask_padding = True  # always
    trimmed_eighths = (4, 6, 8)  # of max_length: to which a training step may cut off padding

    def __post_init__(self):
        flags.check_implementation(self.implementation)
        for field in ("vocabulary_size", "max_length", "embed_dim", "hidden_dim"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} is not positive")
        for field, names in (("encoder_cell", tuple(CELLS)), ("score", SCORES)):
            if getattr(self, field) not in names:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {', '.join(names)}")
        if self.bidirectional and self.hidden_dim % 2:
            raise ValueError(f"hidden_dim={self.hidden_dim} is odd: with bidirectional each direction has half of it")
        if not 0 <= self.dropout_rate < 1:
            raise ValueError(f"dropout_rate={self.dropout_rate} is not in [0, 1)")

    @property
    def num_heads(self) -> int:
        """The heads of the attention."""
        return 1

    @property
    def largest_activation(self) -> int:
        """The entries of the largest array of a layer for one pair: the attention weights of queries as long as a source."""
        return self.num_heads * self.max_length**2


class Memory(NamedTuple):
    """What the decoder reads of a source.

    Attributes:
      keys: `[*B, S, D]`, what the score compares with the decoder's state.
      outputs: `[*B, S, D]`, the encoder's outputs.
      last: `[*B, D]`, its last state: with two directions, the last one of each.
      valid: bool `[*B, S]`.
    """

    keys: Array
    outputs: Array
    last: Array
    valid: Valid


class Encoder(nn.Module):
    """Reads a source forwards, and backwards too if it is bidirectional.

    Attributes:
      config: the architecture.
    """

    config: RecurrentConfig

    @nn.compact
    def __call__(self, x: Array, valid: Valid) -> tuple[Array, Array]:
        """Embeddings `[*B, S, E]` to outputs `[*B, S, D]` and the last state `[*B, D]`. Padding is behind the tokens."""
        config, lengths = self.config, jnp.sum(valid, axis=-1, dtype=jnp.int32)
        cell = CELLS[config.encoder_cell]
        size = config.hidden_dim // 2 if config.bidirectional else config.hidden_dim
        forward = _run(cell(size, name="forward"), x, lengths)
        index = jnp.maximum(lengths - 1, 0)[..., None, None]
        last = jnp.take_along_axis(forward, index, axis=-2)[..., 0, :]
        if not config.bidirectional:
            return forward, last
        backward = _run(cell(size, name="backward"), x, lengths, reverse=True)
        return jnp.concatenate([forward, backward], -1), jnp.concatenate([last, backward[..., 0, :]], -1)


def _run(cell: nn.RNNCellBase, x: Array, lengths: Array, reverse: bool = False) -> Array:
    """The outputs `[*B, S, D]` of a cell, which starts from zeros: in a `jax.shard_map`, from zeros that vary as `x` does."""
    zeros = cell.initialize_carry(jax.random.key(0), (*x.shape[:-2], x.shape[-1]))
    run: Any = nn.RNN(cell, reverse=reverse, keep_order=True)
    return run(x, initial_carry=match_varying(zeros, x), seq_lengths=lengths)


class RecurrentSeq2Seq(Seq2Seq):
    """An encoder and a decoder. In each step the decoder's last state asks, and the encoder's outputs are keys and values.

        c_i = attend(s_{i-1}, h, h),  s_i = GRU([y_{i-1}; c_i], s_{i-1}),  logits = W tanh(U [s_i; c_i; y_{i-1}])

    This is Bahdanau et al. 2015, appendix A, with tanh in place of their maxout.

    Attributes:
      config: the architecture.
    """

    config: RecurrentConfig

    def setup(self):
        config, size = self.config, self.config.hidden_dim
        self.embedding = nn.Embed(config.vocabulary_size, config.embed_dim)
        self.encoder = Encoder(config)
        self.bridge = nn.Dense(size)
        self.cell = nn.GRUCell(size)
        self.readout = nn.Dense(size)
        self.logits = nn.Dense(config.vocabulary_size)
        if config.score == "additive":
            self.query, self.key = nn.Dense(size, use_bias=False), nn.Dense(size)
            self.vector = self.param("vector", nn.initializers.normal(size**-0.5), (size,))
        elif config.score == "bilinear":
            self.matrix = self.param("matrix", nn.initializers.glorot_uniform(), (size, size))
        elif config.score == "cosine":
            self.temperature = self.param("temperature", nn.initializers.constant(_TEMPERATURE), ())

    def start(self, memory: Memory, length: int) -> Array:
        """The decoder's state before the first token, `[*B, D]`; any number of tokens fits into it."""
        del length
        return jnp.tanh(self.bridge(memory.last))

    def step(self, memory: Memory, state: Array, token: Array, index: Array) -> tuple[Array, Array]:
        """One token.

        Args:
          memory: that of the source.
          state: `[*B, D]`.
          token: integers `[*B]`, the last token, or the start.
          index: how many tokens were before it, which a recurrent decoder need not know.

        Returns:
          The state after it, and the logits of the next token `[*B, C]`.
        """
        del index
        embedded = self.embedding(token)
        state, context = self._advance(memory, state, embedded)
        return state, self.logits(self._features(state, context, embedded))

    def alignment(self, source: Tokens, target: Tokens) -> tuple[Array, ...]:
        """The weights `[*B, 1, U, S]` over the source with which each target token was computed; () without attention."""
        if self.config.score == "none":
            return ()
        memory = self.encode(source)
        _, _, asked = self._unrolled(memory, self.embedding(shifted(target)))
        query, key = self._query(asked)[..., None, :], memory.keys[..., None, :]
        return (attention_weights(query, key, score=self._score(), mask=memory.valid[..., None, None, :]),)

    def _encode(self, source: Tokens, drop: Drop) -> Memory:
        valid = source != PADDING
        outputs, last = self.encoder(drop(self.embedding(source)), valid)
        return Memory(self.key(outputs) if self.config.score == "additive" else outputs, outputs, last, valid)

    def _taught(self, memory: Memory, inputs: Tokens, drop: Drop) -> Array:
        embedded = drop(self.embedding(inputs))
        states, contexts, _ = self._unrolled(memory, embedded)
        return self.logits(drop(self._features(states, contexts, embedded)))

    def _unrolled(self, memory: Memory, embedded: Array) -> tuple[Array, Array, Array]:
        """The states, the contexts and the states that asked for them, `[*B, U, D]` each, for embeddings `[*B, U, E]`."""

        def body(model: "RecurrentSeq2Seq", state: Array, embedded: Array, memory: Memory):
            after, context = model._advance(memory, state, embedded)
            return after, (after, context, state)

        axis: Any = embedded.ndim - 2
        axes: Any = axis, nn.broadcast
        scanned = nn.scan(body, variable_broadcast="params", split_rngs={"params": False}, in_axes=axes, out_axes=axis)
        _, found = scanned(self, self.start(memory, 0), embedded, memory)
        return found

    def _advance(self, memory: Memory, state: Array, embedded: Array) -> tuple[Array, Array]:
        """The state after a token `[*B, E]`, and the context `[*B, D]` with which it was computed."""
        context = self._context(memory, state)
        after, _ = self.cell(state, jnp.concatenate([embedded, context], -1))
        return after, context

    def _context(self, memory: Memory, state: Array) -> Array:
        if self.config.score == "none":
            return memory.last
        found = attend(
            self._query(state)[..., None, None, :],
            memory.keys[..., None, :],
            memory.outputs[..., None, :],
            score=self._score(),
            mask=memory.valid[..., None, None, :],
            implementation=self.config.implementation,
        )
        return found[..., 0, 0, :]

    def _query(self, state: Array) -> Array:
        return self.query(state) if self.config.score == "additive" else state

    def _score(self) -> scores.Score:
        if self.config.score == "additive":
            return scores.additive(self.vector)
        if self.config.score == "bilinear":
            return scores.bilinear(self.matrix)
        if self.config.score == "cosine":
            return scores.cosine(self.temperature)
        return self.config.score

    def _features(self, state: Array, context: Array, embedded: Array) -> Array:
        return jnp.tanh(self.readout(jnp.concatenate([state, context, embedded], -1)))
