"""Keys and queries that nobody reads: cleaned once, so that no product has to be made pair by pair for their sake.

A weight of 0 hides a vector, but 0 · NaN is NaN. Where a mask says the same of a key to all queries, its NaN and Inf can go
before the first product. Where it does not, see `attn.tiles.contract`.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax

from attn.arguments import Arguments
from attn.shapes import Array

FILL = 1  # for NaN and Inf. Not 0: there many a score has no value or no slope, as a cosine and a root


def hide_keys(arguments: Arguments) -> Arguments:
    """The arguments without NaN and Inf in keys that are masked for every query, nor in their values; these get no gradient."""
    shown = _shown(arguments)
    if shown is None:
        return arguments
    return dataclasses.replace(arguments, key=_clean(arguments.key, shown), value=_clean(arguments.value, shown))


def hide_queries(arguments: Arguments, query_weights: Array) -> Arguments:
    """The arguments without NaN and Inf in queries of weight 0, which get no gradient; `query_weights` is `[B, T]`."""
    return dataclasses.replace(arguments, query=_clean(arguments.query, (query_weights != 0)[:, None, None, :, None]))


def _clean(array: Array, shown: Array) -> Array:
    return jnp.where(shown, array, lax.stop_gradient(jnp.where(jnp.isfinite(array), array, FILL)))


def _shown(arguments: Arguments) -> Array | None:
    """`[B|1, K|1, S|1, 1]`, False for a key that is masked for every query; None where no mask is of whole keys."""
    shown = arguments.mask[:, :, 0, 0, :, None] if arguments.masks_whole_keys and arguments.mask is not None else None
    if arguments.key_lengths is None:
        return shown
    within = jnp.arange(arguments.key.shape[2]) < arguments.key_lengths[:, None]
    return within[:, None, :, None] if shown is None else shown & within[:, None, :, None]
