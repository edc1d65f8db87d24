"""A caller's function as a program and its captured arrays, so that both can pass through `jit` and `custom_vjp`.

A closure hides what it captured: a learned array in it would get no gradient from a hand-written backward pass, and a
compiled program that was kept under the closure's name would go on with the old array. A jaxpr hides nothing.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from attn.shapes import Array


class Program:
    """A function of scalars or vectors, without what it captured. Two programs with the same text are the same.

    Unless the text does not tell all: arrays inside of a compiled function, and derivative rules, are not printed.
    """

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.jaxpr = jaxpr

    @functools.cached_property
    def text(self) -> str:
        return str(self.jaxpr)

    @functools.cached_property
    def tells_all(self) -> bool:
        return _tells_all(self.jaxpr)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Program) and self.tells_all and other.tells_all and self.text == other.text

    def __call__(self, captured: tuple[Array, ...], *arguments: Array) -> Array:
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, list(captured)))(*arguments)[0]


def trace(name: str, function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct) -> tuple[Program, tuple[Array, ...], Any]:
    """The program, what it captured, and the shape and dtype of its one result.

    Raises:
      ValueError: where the function does not take these arguments, or does not return one real scalar.
    """
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{name} is called with {len(arguments)} arguments: {error}") from None
    except ValueError:  # some functions written in C have no signature to look at
        pass
    # In a function of its own, because JAX keeps what it traced under the function, and this one may have captured anew.
    closed, result = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*arguments)
    if not isinstance(result, jax.ShapeDtypeStruct) or result.shape != () or jnp.issubdtype(result.dtype, jnp.complexfloating):
        raise ValueError(f"{name} returns {result} for one query and one key: it must return one real scalar")
    return Program(closed.jaxpr), tuple(closed.consts), result


def _tells_all(jaxpr: Jaxpr) -> bool:
    return all(_is_told(value) for equation in jaxpr.eqns for value in equation.params.values())


def _is_told(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_told, value))
    if isinstance(value, ClosedJaxpr):
        return not value.consts and _tells_all(value.jaxpr)
    return _tells_all(value) if isinstance(value, Jaxpr) else not callable(value) or isinstance(value, type)
