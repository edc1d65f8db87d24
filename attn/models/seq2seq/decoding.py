"""Decoding: from a source to the most probable target, one token at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attn.models.seq2seq.tokens import END, PADDING, START, possible
from attn.shapes import Array, Tokens


class Decoded(NamedTuple):
    """Targets.

    Attributes:
      tokens: int32 `[.., U]`: the tokens with their end, then padding. A target without an end was cut off at U tokens.
      log_probability: float32 `[..]`, of all its tokens together, in nats.
    """

    tokens: Array
    log_probability: Array


def greedy(model: Any, params: Any, source: Tokens, length: int) -> Decoded:
    """Takes the most probable token in each step.

    Args:
      model: a `RecurrentSeq2Seq` or a `TransformerSeq2Seq`.
      params: its parameters.
      source: integers `[*B, S]`.
      length: U, the largest number of tokens of a target, with its end.
    """
    apply = _methods(model, params)
    memory = apply("encode", source)

    def body(carry: tuple[Any, Array, Array, Array], index: Array):
        state, token, total, ended = carry
        state, logits = apply("step", memory, state, token, index)
        log_probabilities = possible(jax.nn.log_softmax(logits.astype(jnp.float32)))
        best = jnp.argmax(log_probabilities, -1).astype(jnp.int32)
        total += jnp.where(ended, 0, jnp.max(log_probabilities, -1))
        token = jnp.where(ended, PADDING, best)
        return (state, token, total, ended | (token == END)), token

    batch = source.shape[:-1]
    first = jnp.full(batch, START, jnp.int32), jnp.zeros(batch, jnp.float32), jnp.zeros(batch, bool)
    (_, _, total, _), tokens = lax.scan(body, (apply("start", memory, length), *first), jnp.arange(length))
    return Decoded(jnp.moveaxis(tokens, 0, -1), total)


def beam(model: Any, params: Any, source: Tokens, length: int, width: int, length_penalty: float = 0.0) -> Decoded:
    """Beam search: in each step the `width` most probable beginnings are kept, and those that have ended among them.

    Args:
      model, params, length: as in `greedy`.
      source: integers `[S]`; map the function for several sources.
      width: W, the number of beginnings.
      length_penalty: α of Wu et al. 2016, equation 14: the targets that are left at the end are ordered by their
        log-probability / ((5 + tokens) / 6)^α. 0 orders them by probability.

    Returns:
      W targets, the best first: tokens `[W, U]`, log-probabilities `[W]`, which are −inf where there are fewer targets than W.

    Raises:
      ValueError: `width` is not positive, or the source is not `[S]`.
    """
    if width < 1:
        raise ValueError(f"width={width} is not positive")
    if source.ndim != 1:
        raise ValueError(f"source {source.shape} must be [S]: map the function for several sources")
    apply = _methods(model, params)
    memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (width, *x.shape)), apply("encode", source))

    def body(carry: tuple[Any, Array, Array], index: Array):
        state, tokens, totals = carry
        last = jnp.where(index == 0, START, tokens[:, index - 1])
        state, logits = apply("step", memory, state, last, index)
        totals, parents, chosen = _extended(totals, last, logits.astype(jnp.float32), width)
        state, tokens = jax.tree.map(lambda x: x[parents], (state, tokens))
        return (state, tokens.at[:, index].set(chosen), totals), None

    totals = jnp.full(width, -jnp.inf).at[0].set(0.0)  # the beginnings are all empty: one is enough
    first = apply("start", memory, length), jnp.full((width, length), PADDING, jnp.int32), totals
    (_, tokens, totals), _ = lax.scan(body, first, jnp.arange(length))
    penalty = ((5 + jnp.sum(tokens != PADDING, -1)) / 6) ** length_penalty
    order = jnp.argsort(-totals / penalty, stable=True)
    return Decoded(tokens[order], totals[order])


def _extended(totals: Array, last: Array, logits: Array, width: int) -> tuple[Array, Array, Array]:
    """The best extensions of W beginnings by one token: their log-probabilities, their beginnings and their tokens, `[W]`."""
    ended = (last == END) | (last == PADDING)
    only_padding = jnp.full(logits.shape[-1], -jnp.inf).at[PADDING].set(0.0)
    log_probabilities = jnp.where(ended[:, None], only_padding, possible(jax.nn.log_softmax(logits)))
    totals, index = lax.top_k((totals[:, None] + log_probabilities).ravel(), width)
    return totals, index // logits.shape[-1], (index % logits.shape[-1]).astype(jnp.int32)


def _methods(model: Any, params: Any):
    """Returns a function that calls a method of the model by its name."""
    return lambda name, *arguments: model.apply({"params": params}, *arguments, method=name)
