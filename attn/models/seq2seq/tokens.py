"""The ids that are no words, and what a target is to the decoder."""

import jax.numpy as jnp

from attn.shapes import Array, Tokens

PADDING, START, UNKNOWN, END = range(4)


def shifted(target: Tokens) -> Tokens:
    """The decoder's inputs `[*B, U]`: the start, then the target without its last token."""
    return jnp.concatenate([jnp.full_like(target[..., :1], START), target[..., :-1]], axis=-1)


def or_unknown(target: Array | None, source: Array) -> Array:
    """The target; where there is none, a single token of padding, so that a source alone initialises all parameters."""
    return jnp.full((*source.shape[:-1], 1), PADDING, jnp.int32) if target is None else target


def possible(logits: Array) -> Array:
    """Logits `[.., C]` with −inf for padding and the start, which are no part of a target: what is chosen from."""
    return logits.at[..., jnp.array([PADDING, START])].set(-jnp.inf)
