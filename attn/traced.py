"""A caller's function as a program and its captured arrays, so that both can pass through `jit` and `custom_vjp`.

A closure hides what it captured: a learned array in it would get no gradient from a hand-written backward pass, and a
compiled program that was kept under the closure's name would go on with the old array. A jaxpr hides nothing.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from attn.shapes import Array


class Program:
    """A function of scalars or vectors, without what it captured. Two programs with the same text are the same."""

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.jaxpr = jaxpr

    @functools.cached_property
    def text(self) -> str:
        return str(self.jaxpr)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.text == other.text

    def __call__(self, captured: tuple[Array, ...], *arguments: Array) -> Array:
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, list(captured)))(*arguments)[0]


def trace(name: str, function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct) -> tuple[Program, tuple[Array, ...], Any]:
    """The program, what it captured, and the shape and dtype of its one result.

    Raises:
      ValueError: where the function does not return one scalar.
    """
    closed, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
    if not isinstance(result, jax.ShapeDtypeStruct) or result.shape != ():
        raise ValueError(f"{name} returns {result} for one query and one key: it must return one scalar")
    return Program(closed.jaxpr), tuple(closed.consts), result
