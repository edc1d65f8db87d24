"""Products over the pairs of a tile that never let NaN or Inf of a masked key or value into the result, or into a gradient.

All of them come from one trilinear form, Σ pairs[b, k, r, t, s] · queries[b, k, r, t, c] · keys[b, k, s, c]: the logits are its
derivative by the pairs, the output is the one by the queries, and so on. The gradient of a product is a product of the same
kind, which has to be as careful. JAX is told so by a primitive of our own.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from attn.kernels.inputs import Inputs
from attn.shapes import Allowed, Array

# Whether NaN or Inf is masked for some queries only. None: no. True: perhaps. An array: the running program knows.
MaskedNonfinite = Array | Literal[True] | None
_AXES = "bkrtsc"
_product_p = Primitive("attn_masked_product")


def contract(
    out: str,
    left_axes: str,
    left: Array,
    right_axes: str,
    right: Array,
    allowed: Allowed | None,
    masked_nonfinite: MaskedNonfinite,
) -> Array:
    """einsum(left, right) to the axes `out`, over the pairs of query and key that are allowed.

    An array `[.., t, s]` is 0 at the other pairs, or NaN in the row of a query that may attend to NaN; and 0 · NaN is NaN.
    """
    if allowed is None or masked_nonfinite is None:
        return _plain(out, left_axes, left, right_axes, right)
    known = () if masked_nonfinite is True else (masked_nonfinite,)
    return _product_p.bind(left, right, allowed, *known, out=out, left_axes=left_axes, right_axes=right_axes)


def find_masked_nonfinite(inputs: Inputs, *more: Array) -> MaskedNonfinite:
    """Whether NaN or Inf may be masked for some queries only."""
    if not inputs.has_pairwise_mask:
        return None
    if inputs.devices > 1:  # the devices would have to agree on one answer
        return True
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


def _product(left: Array, right: Array, allowed: Array, *known: Array, out: str, left_axes: str, right_axes: str) -> Array:
    """The product of arrays that may have further axes in front, one for each `jax.vmap` around it."""

    def product(left: Array, right: Array, allowed: Array) -> Array:
        arguments = out, left_axes, left, right_axes, right
        if {"t", "s"} <= set(out):
            return jnp.where(allowed, _plain(*arguments), 0)
        if known:
            return lax.cond(known[0], lambda: _by_pair(*arguments, allowed), lambda: _plain(*arguments))
        return _by_row(*arguments, allowed)

    for _ in range(left.ndim - len(left_axes)):
        product = jax.vmap(product)
    return product(left, right, allowed)


def _plain(out: str, left_axes: str, left: Array, right_axes: str, right: Array) -> Array:
    return jnp.einsum(f"{left_axes},{right_axes}->{out}", left, right)


def _by_pair(out: str, left_axes: str, left: Array, right_axes: str, right: Array, allowed: Array) -> Array:
    """Each pair on its own: exact, in several times the time, and with memory for all pairs and channels."""
    product = _expand(left, left_axes) * _expand(right, right_axes)
    return jnp.einsum(f"{_AXES}->{out}", jnp.where(allowed[..., None], product, 0))


def _by_row(out: str, left_axes: str, left: Array, right_axes: str, right: Array, allowed: Array) -> Array:
    """The product of the finite numbers; what the others add up to is added where a vector with one of them is allowed.

    Needs no branch, and one pass over the pairs. If a tile holds several such vectors, a query that may attend to one of them
    gets the NaN and Inf of all of them.
    """
    pairs, rows, axes = (left, right, right_axes) if {"t", "s"} <= set(left_axes) else (right, left, left_axes)
    finite = jnp.isfinite(rows)
    nonfinite = jnp.sum(jnp.where(finite, 0, rows), axis=[i for i, axis in enumerate(axes) if axis not in "bkc"])
    nonfinite = jnp.expand_dims(nonfinite, [i for i, axis in enumerate(out) if axis not in "bkc"])
    seen = _reached(~jnp.all(finite, axis=-1), axes.replace("c", ""), allowed, out.replace("c", ""))
    if "s" in out:  # otherwise NaN at masked pairs stays in the row of a query that has it at other pairs too
        pairs = jnp.where(allowed, pairs, 0)
    product = jnp.einsum(f"bkrts,{axes}->{out}", pairs, jnp.where(finite, rows, 0))
    return product + jnp.where(jnp.expand_dims(seen, out.index("c")), nonfinite, 0)


def _reached(bad: Array, axes: str, allowed: Array, out: str) -> Array:
    """Whether an allowed pair leads to a bad vector, for the axes `out`; an axis on which it does not depend has size 1.

    As a product of floats, which is faster than a reduction of booleans, and without the axes that all pairs share.
    """
    varying = [i for i, n in enumerate(allowed.shape) if n != 1]
    letters = "".join("bkrts"[i] for i in varying)
    pairs = allowed.reshape([allowed.shape[i] for i in varying]).astype(jnp.float32)
    found = [axis for axis in out if axis in letters + axes]
    product = jnp.einsum(f"{letters},{axes}->{''.join(found)}", pairs, bad.astype(jnp.float32))
    return jnp.expand_dims(product > 0, [i for i, axis in enumerate(out) if axis not in found])


def _expand(array: Array, axes: str) -> Array:
    """The array with an axis of size 1 for each missing axis of "bkrtsc"."""
    order = sorted(range(len(axes)), key=lambda i: _AXES.index(axes[i]))
    missing = [i for i, axis in enumerate(_AXES) if axis not in axes]
    return jnp.expand_dims(jnp.transpose(array, order), missing)


def _abstract(*arguments: Any, **axes: str) -> Any:
    return jax.make_jaxpr(functools.partial(_product, **axes))(*arguments).out_avals[0]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **axes: str) -> tuple[Any, Any]:
    left, right, *rest = primals
    output = _product_p.bind(left, right, *rest, **axes)
    pairs = [(tangents[0], right), (left, tangents[1])]
    terms = [_product_p.bind(*pair, *rest, **axes) for pair in pairs if not any(isinstance(x, ad.Zero) for x in pair)]
    return output, sum(terms[1:], terms[0])  # without any tangent, JAX does not ask


def _transpose(cotangent: Any, left: Any, right: Any, *rest: Any, out: str, left_axes: str, right_axes: str) -> list[Any]:
    if isinstance(cotangent, ad.Zero):
        return [None] * (2 + len(rest))
    if ad.is_undefined_primal(left):
        gradient = _product_p.bind(cotangent, right, *rest, out=left_axes, left_axes=out, right_axes=right_axes)
        return [gradient, None, *(None for _ in rest)]
    gradient = _product_p.bind(left, cotangent, *rest, out=right_axes, left_axes=left_axes, right_axes=out)
    return [None, gradient, *(None for _ in rest)]


def _batch(arguments: Sequence[Array], batched: Sequence[int | None], **axes: str) -> tuple[Array, int]:
    size = next(x.shape[axis] for x, axis in zip(arguments, batched, strict=True) if axis is not None)

    def in_front(x: Array, axis: int | None) -> Array:
        return jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)

    arrays = [in_front(x, axis) for x, axis in zip(arguments[:3], batched, strict=False)]
    known = [x if axis is None else jnp.any(x) for x, axis in zip(arguments[3:], batched[3:], strict=True)]
    return _product_p.bind(*arrays, *known, **axes), 0


_product_p.def_impl(jax.jit(_product, static_argnames=("out", "left_axes", "right_axes")))
_product_p.def_abstract_eval(_abstract)
ad.primitive_jvps[_product_p] = _jvp
ad.primitive_transposes[_product_p] = _transpose
batching.primitive_batchers[_product_p] = _batch
mlir.register_lowering(_product_p, mlir.lower_fun(_product, multiple_results=False))
