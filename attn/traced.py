"""A caller's function as a program and its captured arrays, so that both can pass through `jit` and `custom_vjp`.

A closure hides what it captured: a learned array in it would get no gradient from a hand-written backward pass, and a
compiled program that was kept under the closure's name would go on with the old array. A jaxpr hides nothing.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from attn.shapes import Array


class Program:
    """A function of scalars or vectors, without what it captured. Two programs with the same text are the same.

    Unless the text does not tell all: arrays inside of a compiled function, and derivative rules, are not printed.
    """

    def __init__(self, jaxpr: Jaxpr, sharded: bool = False) -> None:
        self.jaxpr = jaxpr
        self.sharded = sharded  # traced with arguments that vary over the axes of a `jax.shard_map`

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
        values = (*captured, *arguments)
        if self.sharded or any(varying(value) for value in values):
            return _evaluate(self.jaxpr, values)[0]
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, list(captured)))(*arguments)[0]


def vary(tree: Any, like: Any) -> Any:
    """The arrays, varying over those axes of a surrounding `jax.shard_map` that any array of `like` varies over.

    A loop's state must have one type, and what it adds up over shards has to be cast where autodiff sees it.
    """
    axes = frozenset().union(*(varying(x) for x in jax.tree.leaves(like)))

    def cast(array: Array) -> Array:
        missing = tuple(axes - varying(array))
        return lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(cast, tree) if axes else tree


def varying(array: Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    return jax.typeof(array).manual_axis_type.varying


def _evaluate(jaxpr: Jaxpr, values: Sequence[Array]) -> list[Array]:
    """What a program gives inside of `jax.shard_map`, where `jnp` would have cast the inputs of each equation to one type.

    The program was traced without knowing over which axes its inputs vary, so its literals, for one, are not cast.
    """
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), values, strict=True))

    def read(variable: Any) -> Array:
        return jnp.asarray(variable.val, jax.typeof(variable.val).dtype) if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        inputs = vary(inputs, inputs)
        if equation.primitive.name in ("pvary", "pcast"):  # as it is now; it is cast where it meets what varies
            outputs = inputs
        elif equation.primitive.name in ("jit", "pjit"):
            outputs = _evaluate(equation.params["jaxpr"].jaxpr, (*equation.params["jaxpr"].consts, *inputs))
        else:
            outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        known |= zip(equation.outvars, outputs, strict=True)
    return [read(variable) for variable in jaxpr.outvars]


def trace(
    name: str, function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct, like: Any = ()
) -> tuple[Program, tuple[Array, ...], Any]:
    """The program, what it captured, and the shape and dtype of its one result.

    Its arguments will vary over the axes of a surrounding `jax.shard_map` that any array of `like` varies over.

    Raises:
      ValueError: where the function does not take these arguments, or does not return one real scalar.
    """
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{name} is called with {len(arguments)} arguments: {error}") from None
    except ValueError:  # some functions written in C have no signature to look at
        pass
    axes = frozenset().union(*(varying(x) for x in jax.tree.leaves(like)))
    inputs = [vary(jnp.zeros(x.shape, x.dtype), like) for x in arguments] if axes else arguments
    # In a function of its own, because JAX keeps what it traced under the function, and this one may have captured anew.
    closed, result = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*inputs)
    if not isinstance(result, jax.ShapeDtypeStruct) or result.shape != () or jnp.issubdtype(result.dtype, jnp.complexfloating):
        raise ValueError(f"{name} returns {result} for one query and one key: it must return one real scalar")
    return Program(closed.jaxpr, bool(axes)), tuple(closed.consts), result


def _tells_all(jaxpr: Jaxpr) -> bool:
    return all(_is_told(value) for equation in jaxpr.eqns for value in equation.params.values())


def _is_told(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_told, value))
    if isinstance(value, ClosedJaxpr):
        return not value.consts and _tells_all(value.jaxpr)
    return _tells_all(value) if isinstance(value, Jaxpr) else not callable(value) or isinstance(value, type)
