"""A mark on what only reverse mode can differentiate, so that forward mode is told what to use instead.

JAX's own error for a function with a hand-written backward pass names neither the function nor the way out. It comes where a
pushed tangent is batched (`jax.jacfwd`); everywhere else the mark comes first.
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


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError(_MESSAGE)


def _batch(arrays: Any, axes: Any) -> tuple[Any, Any]:
    return _tangent_p.bind(*arrays), axes[0]


_tangent_p.def_impl(_refuse)
_tangent_p.def_abstract_eval(lambda tangent: tangent)
ad.deflinear2(_tangent_p, lambda cotangent, _: [cotangent])
batching.primitive_batchers[_tangent_p] = _batch
mlir.register_lowering(_tangent_p, _refuse)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns JAX's error into ours."""
    try:
        yield
    except TypeError as error:
        if "forward-mode" in str(error) and str(error) != _MESSAGE:
            raise TypeError(_MESSAGE) from None
        raise


def in_reverse_mode_only(tree: Tree) -> Tree:
    """The arrays. Pushing a tangent forward through an inexact one is a TypeError; pulling a cotangent back is not."""
    return jax.tree.map(lambda array: _marked(array) if jnp.issubdtype(array.dtype, jnp.inexact) else array, tree)


@jax.custom_jvp
def _marked(array: Array) -> Array:
    return array


@_marked.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0], _tangent_p.bind(tangents[0])
