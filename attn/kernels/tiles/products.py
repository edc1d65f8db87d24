"""Products over the pairs of a tile that never let NaN or Inf of a masked key or value into the result."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from attn.kernels.inputs import Inputs
from attn.shapes import Allowed, Array


def contract(
    out: str,
    left_axes: str,
    left: Array,
    right_axes: str,
    right: Array,
    allowed: Allowed | None,
    masked_nonfinite: Array | None,
) -> Array:
    """einsum(left, right) to the axes `out`, over the pairs of query and key that are allowed.

    An array `[.., t, s]` is 0 at the other pairs, but 0 · NaN is NaN. Where `masked_nonfinite` is true, the product is
    therefore computed pair by pair.
    """

    def plain(left: Array, right: Array) -> Array:
        return jnp.einsum(f"{left_axes},{right_axes}->{out}", left, right)

    if allowed is None or masked_nonfinite is None:
        return plain(left, right)

    @jax.checkpoint
    def by_pair(left: Array, right: Array) -> Array:
        factors = (_expand(left, left_axes), _expand(right, right_axes))
        # The factors are masked and not the product, whose gradient would hold 0 · NaN.
        left, right = (jnp.where(allowed[..., None], factor, 0) for factor in factors)
        return jnp.einsum(f"bkrtsc->{out}", left * right)

    return lax.cond(masked_nonfinite, by_pair, plain, left, right)


def find_masked_nonfinite(inputs: Inputs, *more: Array) -> Array | None:
    """Whether NaN or Inf may be masked for some queries only, a scalar bool. None where no mask is of that kind."""
    if not inputs.has_pairwise_mask:
        return None
    arrays = (inputs.query, inputs.key, inputs.value, *more)
    return any_nonfinite([lax.stop_gradient(array) for array in arrays])


@jax.custom_batching.custom_vmap
def any_nonfinite(arrays: Sequence[Array]) -> Array:
    """Whether any entry is NaN or Inf: one answer for a whole batch, also under `vmap`, so that `lax.cond` stays a branch."""
    return jnp.any(jnp.stack([~jnp.all(jnp.isfinite(array)) for array in arrays]))


@any_nonfinite.def_vmap
def _(axis_size: int, batched: Sequence[bool], arrays: Sequence[Array]) -> tuple[Array, bool]:
    del axis_size, batched
    return any_nonfinite(arrays), False


def _expand(array: Array, axes: str) -> Array:
    """The array with an axis of size 1 for each missing axis of "bkrtsc"."""
    order = sorted(range(len(axes)), key=lambda i: "bkrtsc".index(axes[i]))
    missing = [i for i, axis in enumerate("bkrtsc") if axis not in axes]
    return jnp.expand_dims(jnp.transpose(array, order), missing)
