"""A caller's function as a program and the arrays that it captured, so that both can pass through `jit` and `custom_vjp`.

A closure hides what it captured. A learned array inside it would get no gradient from a hand-written backward pass, and a
compiled program that is cached under the function's identity would keep using an old array. A jaxpr lists its constants.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from attn.kernels.manual_axes import match_varying, varying_axes
from attn.kernels.program_keys import program_key
from attn.shapes import Array


class Program:
    """A traced function of scalars or vectors, without the arrays that it captured.

    Two programs are equal if they compute the same, with the same derivatives: see `program_keys.program_key`.
    """

    def __init__(self, jaxpr: Jaxpr, sharded: bool = False) -> None:
        self.jaxpr = jaxpr
        self.sharded = sharded  # traced with arguments that vary over the axes of a `jax.shard_map`

    @functools.cached_property
    def key(self) -> tuple[Any, ...]:
        return self.sharded, *program_key(self.jaxpr)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self.key == other.key)

    def __call__(self, captured: tuple[Array, ...], *arguments: Array) -> Array:
        values = (*captured, *arguments)
        if self.sharded or varying_axes(*values):
            return _evaluate(self.jaxpr, values)[0]
        return jaxpr_as_fun(ClosedJaxpr(self.jaxpr, list(captured)))(*arguments)[0]


def trace(
    name: str, function: Callable[..., Any], *arguments: jax.ShapeDtypeStruct, like: Any = ()
) -> tuple[Program, tuple[Array, ...], Any]:
    """Traces a caller's function.

    Args:
      name: the argument of `attn.attend` that the function was passed as, for error messages.
      function: takes `arguments` and returns one real scalar.
      arguments: shapes and dtypes. The program's arguments vary over those axes of a surrounding `jax.shard_map` that any
        array of `like` varies over.

    Returns:
      The program, the arrays that it captured, and the shape and dtype of its result.

    Raises:
      ValueError: the function does not take these arguments, or does not return one real scalar.
    """
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"{name} is called with {len(arguments)} arguments: {error}") from None
    except ValueError:  # some functions written in C have no signature
        pass
    sharded = bool(varying_axes(*jax.tree.leaves(like)))
    examples = [match_varying(jnp.zeros(x.shape, x.dtype), like) for x in arguments] if sharded else arguments
    # A new lambda, because JAX caches what it traced under the function, which may have captured other arrays since.
    closed, result = jax.make_jaxpr(lambda *x: function(*x), return_shape=True)(*examples)
    if not isinstance(result, jax.ShapeDtypeStruct) or result.shape != () or jnp.issubdtype(result.dtype, jnp.complexfloating):
        returned = f"{result.dtype} of shape {result.shape}" if isinstance(result, jax.ShapeDtypeStruct) else result
        raise ValueError(f"{name} returns {returned} for one query and one key: it must return one real scalar")
    return Program(closed.jaxpr, sharded), tuple(closed.consts), result


def _evaluate(jaxpr: Jaxpr, values: Sequence[Array]) -> list[Array]:
    """Evaluates a program inside of `jax.shard_map`, where `jnp` would cast the inputs of each equation to one type.

    The program was traced without the axes over which its inputs vary, so its literals, for example, are not cast.
    """
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), values, strict=True))

    def read(variable: Any) -> Array:
        return jnp.asarray(variable.val, jax.typeof(variable.val).dtype) if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        inputs = match_varying(inputs, inputs)
        if equation.primitive.name in ("pvary", "pcast"):  # a cast of the trace; the line above casts where it is needed
            outputs = inputs
        elif equation.primitive.name in ("jit", "pjit"):
            outputs = _evaluate(equation.params["jaxpr"].jaxpr, (*equation.params["jaxpr"].consts, *inputs))
        else:
            outputs = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(equation.params))
            outputs = outputs if equation.primitive.multiple_results else [outputs]
        known |= zip(equation.outvars, outputs, strict=True)
    return [read(variable) for variable in jaxpr.outvars]
