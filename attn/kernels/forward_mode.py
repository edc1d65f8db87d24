"""A clear error for forward-mode differentiation of a kernel that has only reverse mode.

JAX's own error for a function with a hand-written backward pass names neither the function nor an alternative. JAX raises
it where a pushed tangent is batched (`jax.jacfwd`); in all other cases the marker of `forbid_forward_mode` comes first.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from attn.shapes import Array

Tree = TypeVar("Tree")
_MESSAGE = (
    "implementation='chunked' has no forward mode (jax.jvp, jax.jacfwd, jax.linearize): "
    "pass implementation='chunked_autodiff', which is linear in memory too, or 'dense'"
)
_tangent_p = Primitive("attn_reverse_mode_only")


def _raise(*_: Any, **__: Any) -> Any:
    raise TypeError(_MESSAGE)


def _batch(arrays: Any, axes: Any) -> tuple[Any, Any]:
    return _tangent_p.bind(*arrays), axes[0]


_tangent_p.def_impl(_raise)
_tangent_p.def_abstract_eval(lambda tangent: tangent)
ad.deflinear2(_tangent_p, lambda cotangent, _: [cotangent])
batching.primitive_batchers[_tangent_p] = _batch
mlir.register_lowering(_tangent_p, _raise)


@contextlib.contextmanager
def explain_forward_mode_errors() -> Iterator[None]:
    """Replaces JAX's error about forward mode by one that names the alternatives."""
    try:
        yield
    except TypeError as error:
        if "forward-mode" in str(error) and str(error) != _MESSAGE:
            raise TypeError(_MESSAGE) from None
        raise


def forbid_forward_mode(tree: Tree) -> Tree:
    """The same arrays; pushing a tangent forward through one raises TypeError, pulling a cotangent back does not."""
    return jax.tree.map(lambda array: _marked(array) if jnp.issubdtype(array.dtype, jnp.inexact) else array, tree)


@jax.custom_jvp
def _marked(array: Array) -> Array:
    return array


@_marked.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0], _tangent_p.bind(tangents[0])
