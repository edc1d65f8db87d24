"""Counts the sequential steps of a function on its jaxpr: the longest chain of operations that need each other's results."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

_MOVES = frozenset(
    (
        *("reshape", "broadcast_in_dim", "transpose", "slice", "dynamic_slice", "concatenate", "pad", "squeeze", "rev", "iota"),
        *("copy", "convert_element_type", "stop_gradient", "select_n", "expand_dims", "split"),
    )
)


def sequential_steps(function: Callable, *arguments: Any) -> int:
    """The length of the longest chain from an argument to a result.

    An operation on whole arrays is one step, however large they are: with enough processors its entries are computed at once.
    Moving data is none. A `scan` is as many passes as it has, of which one needs the carried state of the one before.

    Args:
      function: a function of arrays.
      *arguments: arrays, or trees of `jax.ShapeDtypeStruct`; nothing is computed.

    Raises:
      ValueError: the function has a loop of another kind, whose number of passes is not in the jaxpr.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return max(_depths(jaxpr, [0] * len(jaxpr.invars)))


def _depths(jaxpr: Jaxpr, before: Sequence[int]) -> list[int]:
    """The steps up to each result, where so many are before each argument."""
    at: dict[Any, int] = dict.fromkeys(jaxpr.constvars, 0) | dict(zip(jaxpr.invars, before, strict=True))
    for equation in jaxpr.eqns:
        inputs = [0 if isinstance(atom, Literal) else at[atom] for atom in equation.invars]
        at.update(zip(equation.outvars, _of_equation(equation, inputs), strict=True))
    return [0 if isinstance(atom, Literal) else at[atom] for atom in jaxpr.outvars]


def _of_equation(equation: JaxprEqn, inputs: list[int]) -> list[int]:
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _of_scan(params, inputs)
    if name in ("while", "cond"):
        raise ValueError(f"{name}: the number of its steps is not in the jaxpr")
    inner = next((value for value in params.values() if isinstance(value, ClosedJaxpr | Jaxpr)), None)
    if inner is not None:
        return _depths(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner, inputs)
    return [max(inputs, default=0) + (name not in _MOVES)] * len(equation.outvars)


def _of_scan(params: dict[str, Any], inputs: list[int]) -> list[int]:
    consts, carried = params["num_consts"], params["num_carry"]
    state, outputs = inputs[consts : consts + carried], []
    for _ in range(params["length"]):
        found = _depths(params["jaxpr"].jaxpr, [*inputs[:consts], *state, *inputs[consts + carried :]])
        state, outputs = found[:carried], found[carried:]
    return [*state, *outputs]
