"""Who may attend to whom. True always means: may attend."""

import jax.numpy as jnp

from attn.shapes import Array, Mask, Valid


def attendable_keys(valid: Valid) -> Mask:
    """`[*B, S]` of real keys as a mask `[*B, 1, 1, S]` for every head and every query."""
    return valid[..., None, None, :]


def hide_unattended(array: Array, mask: Mask | None) -> Array:
    """Zeros for the keys or values `[*B, S, N, H]` that no query may attend to, whatever they held.

    A weight of zero is not enough: 0 · NaN is NaN, in the product and in its gradient.
    """
    if mask is None:
        return array
    attended = jnp.any(mask, axis=-2)  # T dies: [*B, N, S]
    return jnp.where(jnp.swapaxes(attended, -1, -2)[..., None], array, jnp.zeros((), array.dtype))
