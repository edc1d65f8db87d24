"""What the compiler knows of a jaxpr before it counts or runs anything: constants, and results that are one of the operands.

It is the folding that JAX does while it lowers a program to HLO, found by experiment.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import JaxprEqn, Literal

from experiments.cost.operations import type_of

_VALUES: dict[str, Callable | None] = {  # by primitive that is folded: what gives the value; None if that is not followed
    **dict.fromkeys(("broadcast_in_dim", "reshape", "squeeze", "convert_element_type"), lambda value: value),
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "neg", "eq", "ne", "lt", "le", "gt", "ge")},
    **dict.fromkeys(
        ("div", "rem", "abs", "sign", "not", "xor", "select_n", "exp", "log", "tanh", "sqrt", "rsqrt", "integer_pow")
    ),
    "add_any": operator.add,
    "max": max,
    "min": min,
    "and": operator.and_,
    "or": operator.or_,
}


class Constant(NamedTuple):
    """What is known of a variable.

    Attributes:
      value: Of every entry, a Python number; None if it is not known, or not the same.
      folded: Whether the compiler knows it too where it counts. It does not see through the call of a function.
    """

    value: Any
    folded: bool


Known = dict[Any, Constant]  # by variable


def look_up(known: Known, atom: Any) -> Constant | None:
    """Returns what is known of an operand: a variable or a literal."""
    if not isinstance(atom, Literal):
        return known.get(atom)
    return Constant(np.asarray(atom.val).item() if np.size(atom.val) == 1 else None, True)


def constant_of(equation: JaxprEqn, known: Known) -> Constant | None:
    """Returns the result of an equation if it is a constant."""
    name, inputs = equation.primitive.name, [look_up(known, atom) for atom in equation.invars]
    absorbing = {"and": False, "or": True, "mul": 0}.get(name)
    absorbs = any(each and each.folded and each.value == absorbing for each in inputs) and absorbing is not None
    if absorbs and not np.issubdtype(type_of(equation.outvars[0]).dtype, np.inexact):  # 0 times NaN is NaN
        return Constant(absorbing, True)
    given = [each for each in inputs if each]
    if name not in _VALUES or not given or len(given) < len(inputs):
        return None
    values, value_of = [each.value for each in given], _VALUES[name]
    value = None if value_of is None or None in values else value_of(*values)
    if name == "convert_element_type" and value is not None:
        value = np.asarray(value).astype(equation.params["new_dtype"]).item()
    return Constant(value, all(each.folded for each in given))


def same_as(equation: JaxprEqn, known: Known) -> Any:
    """Returns the operand that is the result of an equation, as in `x * 1`, or None."""
    name, invars = equation.primitive.name, equation.invars
    values = [each.value if each and each.folded else None for each in (look_up(known, atom) for atom in invars)]
    if name == "select_n" and values[0] is not None:
        return invars[1 + int(values[0])]
    if name == "convert_element_type" and type_of(invars[0]).dtype == equation.params["new_dtype"]:  # no longer weakly typed
        return invars[0]
    if name == "sub" and values[1] == 0:
        return invars[0]
    neutral = {"mul": 1, "add": 0, "add_any": 0, "and": True, "or": False}.get(name)
    if neutral is None or neutral not in values:
        return None
    return invars[1 - values.index(neutral)]
