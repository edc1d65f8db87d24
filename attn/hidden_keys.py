"""Keys that no query may attend to: cleaned once, so that no product has to be made pair by pair for their sake.

A weight of 0 hides a key from every query, but 0 · NaN is NaN. Where a mask says the same of a key to all queries, its NaN and
Inf can go before the first product. Where it does not, see `attn.tiles.contract`.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax

from attn.arguments import Arguments
from attn.shapes import Array


def hide(arguments: Arguments) -> Arguments:
    """The arguments with 0 for NaN and Inf in hidden keys and their values, which get no gradient."""
    shown = _shown(arguments)
    if shown is None:
        return arguments

    def clean(array: Array) -> Array:
        # What is finite stays: a score may have no finite gradient at 0.
        return jnp.where(shown, array, lax.stop_gradient(jnp.where(jnp.isfinite(array), array, 0)))

    return dataclasses.replace(arguments, key=clean(arguments.key), value=clean(arguments.value))


def _shown(arguments: Arguments) -> Array | None:
    """`[B|1, K|1, S|1, 1]`, False for a key that is masked for every query; None where no mask is of whole keys."""
    shown = arguments.mask[:, :, 0, 0, :, None] if arguments.masks_whole_keys and arguments.mask is not None else None
    if arguments.key_lengths is None:
        return shown
    within = jnp.arange(arguments.key.shape[2]) < arguments.key_lengths[:, None]
    return within[:, None, :, None] if shown is None else shown & within[:, None, :, None]
