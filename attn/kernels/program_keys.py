"""When two traced functions are the same program, so that a compiled one can be used for both.

The text of a jaxpr shows its operations and the numbers in them. It does not show the arrays inside of an inner compiled
function, nor the derivative rules of `jax.custom_jvp` and `jax.custom_vjp`. The text of the gradient shows what these rules
compute. So the key of a program is its text, the arrays, and, where it has rules, the key of its gradient.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jax.extend.linear_util import WrappedFun
from jax.interpreters.partial_eval import dce_jaxpr
from jax.sharding import AbstractMesh, Mesh

_LARGEST_ARRAY = 2**16  # entries; larger arrays are compared by identity
_DERIVATIVES = 3  # how often a program with rules is differentiated: the gradient of a rule may have rules too


class _Identity(NamedTuple):
    """An object that equals itself only. It is kept alive, because another object may get the `id` of one that is gone."""

    thing: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.thing is other.thing

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return id(self.thing)


def program_key(jaxpr: Jaxpr, consts: Sequence[Any] = (), derivatives: int = _DERIVATIVES) -> tuple[Any, ...]:
    """A hashable value that two jaxprs share if they compute the same values and the same derivatives."""
    found = list(_unprinted(jaxpr))
    rules = tuple(_Identity(_innermost(thing.function)) for thing in found if isinstance(thing, _Rule))
    key = str(jaxpr), *map(_array_key, consts), *(thing for thing in found if not isinstance(thing, _Rule))
    return (*key, *_gradient_key(jaxpr, consts, derivatives, rules)) if rules else key


class _Rule(NamedTuple):
    """A derivative rule, as a parameter of an equation holds it."""

    function: Any


def _innermost(function: Any) -> Any:
    """The function that the caller wrote, inside of those in which JAX wraps it anew in each trace."""
    inside = function.f if isinstance(function, WrappedFun) else function
    if not getattr(inside, "__module__", "").startswith("jax.") or "<locals>" not in getattr(inside, "__qualname__", ""):
        return inside
    contents = [cell.cell_contents for cell in inside.__closure__ or ()]
    wrapped = [x for x in contents if isinstance(x, WrappedFun)] or [x for x in contents if inspect.isfunction(x)]
    return _innermost(wrapped[0]) if wrapped else inside


def _unprinted(jaxpr: Jaxpr) -> Iterator[Any]:
    """What the text of a jaxpr omits: meshes, arrays of inner functions, and derivative rules."""
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            yield from _unprinted_parameter(value)


def _unprinted_parameter(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for entry in value:
            yield from _unprinted_parameter(entry)
    elif isinstance(value, ClosedJaxpr):
        yield from map(_array_key, value.consts)
        yield from _unprinted(value.jaxpr)
    elif isinstance(value, Jaxpr):
        yield from _unprinted(value)
    elif isinstance(value, Mesh | AbstractMesh):
        yield value
    elif isinstance(value, WrappedFun) or (callable(value) and not isinstance(value, type)):
        yield _Rule(value)


def _gradient_key(jaxpr: Jaxpr, consts: Sequence[Any], derivatives: int, rules: tuple[Any, ...]) -> tuple[Any, ...]:
    """The key of the gradient by all numbers that can have one; empty where there are none, as for a mask.

    The rules themselves where there is no gradient, or where it has rules however often it is differentiated.
    """
    variables = [*([] if consts else jaxpr.constvars), *jaxpr.invars]
    examples = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in map(_aval, variables)]
    inputs, outputs = _inexact(variables), _inexact(jaxpr.outvars)
    if not inputs or not outputs:
        return ()
    if derivatives == 0:
        return rules

    def gradient(values: list[Any], cotangents: list[Any]) -> Any:
        def function(*chosen: Any) -> list[Any]:
            merged = dict(enumerate(values)) | dict(zip(inputs, chosen, strict=True))
            bound, rest = (consts, merged) if consts else ([merged.pop(i) for i in range(len(jaxpr.constvars))], merged)
            found = jaxpr_as_fun(ClosedJaxpr(jaxpr, list(bound)))(*rest.values())
            return [found[i] for i in outputs]

        return jax.vjp(function, *(values[i] for i in inputs))[1](cotangents)

    try:
        closed = jax.make_jaxpr(gradient)(examples, [jaxpr.outvars[i].aval for i in outputs])
    except Exception:  # whatever is raised here is raised again where the gradient is asked for
        return rules
    used, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))  # without the values, which the rule is not part of
    return program_key(used, closed.consts, derivatives - 1)


def _aval(variable: Any) -> Any:
    return variable.aval


def _inexact(variables: Sequence[Any]) -> list[int]:
    return [i for i, variable in enumerate(variables) if jnp.issubdtype(variable.aval.dtype, jnp.inexact)]


def _array_key(array: Any) -> Any:
    known = isinstance(array, jax.Array | np.ndarray) and not isinstance(array, Tracer)
    if not known or jnp.issubdtype(array.dtype, jax.dtypes.extended) or array.size > _LARGEST_ARRAY:
        return _Identity(array)
    return array.shape, str(array.dtype), np.asarray(array).tobytes()
