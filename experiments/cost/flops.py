"""Counts the floating-point operations of a function on its jaxpr, with the bodies of loops times their trip counts.

XLA's own `cost_analysis()` counts a loop's body once, however often it runs. Without loops, the two counts are equal. For that,
what the compiler knows before it counts is left out here too: operations on constants, and `x * 1` and `x + 0`.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.interpreters.partial_eval import dce_jaxpr

from experiments.cost.folding import Constant, Known, constant_of, look_up, same_as
from experiments.cost.operations import Flops, of_equation, shape_of, type_of

__all__ = ["Flops", "count"]

_APART = {"jit", "pjit", "closed_call", "core_call"}  # compiled as functions, which see no constant of their caller
_INLINE = {"remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"}


def count(function: Callable | ClosedJaxpr, *arguments: Any) -> Flops:
    """Counts the operations of a call.

    Args:
      function: A function of arrays, or its jaxpr.
      *arguments: Arrays, or trees of `jax.ShapeDtypeStruct`; nothing is computed. None for a jaxpr.
    """
    closed = function if isinstance(function, ClosedJaxpr) else jax.make_jaxpr(function)(*arguments)
    used, _ = dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))  # what has no use is not compiled
    return _of(used, {})


def _of(jaxpr: Jaxpr, known: Known) -> Flops:
    """Counts what is left of a program when the compiler has put in the constants that it knows."""
    known, left = {**known, **dict.fromkeys(jaxpr.constvars, Constant(None, True))}, []
    for equation in jaxpr.eqns:
        constant, same = constant_of(equation, known), same_as(equation, known)
        if constant:
            known[equation.outvars[0]] = constant
        if constant and constant.folded:
            left.append((equation, [], False))
        else:
            left.append((equation, equation.invars if same is None else [same], same is None))
    total, used = Flops(), _variables(jaxpr.outvars)
    for equation, operands, is_counted in reversed(left):
        if equation.effects or used & _variables(equation.outvars):
            used |= _variables(operands)
            total += _of_equation(equation, known) if is_counted else Flops()
    return total


def _variables(atoms: Sequence[Any]) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, Literal)}


def _of_equation(equation: JaxprEqn, known: Known) -> Flops:
    name = equation.primitive.name
    if name in _PROGRAMS:
        return _PROGRAMS[name](equation, known)
    found = of_equation(equation)
    if found is not None:
        return found
    inner = _programs(equation)
    if name in _APART or name in _INLINE:
        # Computed again for a derivative, a program is behind a barrier, so that it is not merged with its first run.
        barrier = equation.params.get("differentiated") and equation.params.get("prevent_cse")
        inline = name in _INLINE and not barrier
        return sum((_of(each, _passed(equation.invars, each.invars, known, inline)) for each in inner), Flops())
    return sum((_of(each, {}) for each in inner), Flops(estimated=frozenset({name})))


def _programs(equation: JaxprEqn) -> list[Jaxpr]:
    return [each for value in equation.params.values() for each in _jaxprs(value)]


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [each for item in value for each in _jaxprs(item)] if isinstance(value, tuple | list) else []


def _passed(outside: Sequence[Any], inside: Sequence[Any], known: Known, inline: bool = False) -> Known:
    """What is known of the variables of an inner program."""
    found = {inner: look_up(known, outer) for outer, inner in zip(outside, inside, strict=False)}
    return {inner: each if inline else each._replace(folded=False) for inner, each in found.items() if each}


def _scan(equation: JaxprEqn, known: Known) -> Flops:
    body, shared = equation.params["jaxpr"].jaxpr, equation.params["num_consts"]
    return _of(body, _passed(equation.invars[:shared], body.invars[:shared], known)).times(equation.params["length"])


def _while(equation: JaxprEqn, known: Known) -> Flops:
    """A loop that counts from one constant to another, as that of `fori_loop`. Any other, and its condition, counts once."""
    body, condition = equation.params["body_jaxpr"].jaxpr, equation.params["cond_jaxpr"].jaxpr
    first, shared = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    inside = _passed(equation.invars[first : first + shared], body.invars[:shared], known)
    trips = _trips(equation, known, inside)
    if trips is not None:
        return _of(body, inside).times(trips)
    return _of(body, inside) + _of(condition, {}) + Flops(estimated=frozenset({"while"}))


def _trips(equation: JaxprEqn, known: Known, inside: Known) -> int | None:
    """The number of passes of a loop whose condition compares a counter with a bound; None if it is not such a loop."""
    body, condition = equation.params["body_jaxpr"].jaxpr, equation.params["cond_jaxpr"].jaxpr
    shared, constants = equation.params["body_nconsts"], equation.params["cond_nconsts"]
    if len(condition.eqns) != 1 or condition.eqns[0].primitive.name not in ("lt", "le", "gt", "ge"):
        return None
    outside = [*equation.invars[:constants], *equation.invars[constants + shared :]]
    starts = _passed(outside, condition.invars, known)
    steps: dict[Any, Any] = dict.fromkeys(condition.invars[:constants], 0)
    for variable, before, after in zip(condition.invars[constants:], body.invars[shared:], body.outvars, strict=True):
        steps[variable] = _increment(body, before, after, inside)
    compared = condition.eqns[0].invars
    numbers: list[Any] = [start.value if (start := look_up(starts, atom)) else None for atom in compared]
    numbers += [0 if isinstance(atom, Literal) else steps[atom] for atom in compared]
    if any(type(each) is not int for each in numbers):  # a counter of floats is rounded
        return None
    left, right, left_step, right_step = numbers
    name = condition.eqns[0].primitive.name
    sign = 1 if name in ("lt", "le") else -1
    distance, closer = sign * (right - left) + (name in ("le", "ge")), sign * (left_step - right_step)
    if distance <= 0:
        return 0
    return -(-distance // closer) if closer > 0 else None


def _increment(body: Jaxpr, before: Any, after: Any, inside: Known) -> int | None:
    """What a pass adds to a carried variable, or None."""
    if after is before:
        return 0
    made = next((each for each in body.eqns if after in each.outvars), None)
    if made is None or made.primitive.name not in ("add", "sub") or before not in made.invars:
        return None
    if made.primitive.name == "sub" and made.invars[0] is not before:
        return None
    other = look_up(inside, made.invars[1 if made.invars[0] is before else 0])
    if other is None or type(other.value) is not int:
        return None
    return other.value if made.primitive.name == "add" else -other.value


def _branches(equation: JaxprEqn, known: Known) -> Flops:
    """The branch with the most operations; an estimate, if they differ."""
    operands = equation.invars[1:]
    found = [_of(each.jaxpr, _passed(operands, each.jaxpr.invars, known)) for each in equation.params["branches"]]
    differ = len({each[:2] for each in found}) > 1
    return max(found, key=lambda each: each.flops + each.transcendentals) + Flops(
        estimated=frozenset({"cond"} if differ else ())
    )


def _shard_map(equation: JaxprEqn, known: Known) -> Flops:
    mesh, axes = equation.params["mesh"], equation.params["newly_manual_axes"]
    (body,) = _jaxprs(equation.params["jaxpr"])
    return _of(body, _passed(equation.invars, body.invars, known)).times(math.prod(mesh.shape[axis] for axis in axes))


def _own(equation: JaxprEqn, known: Known) -> Flops:
    """A primitive of `attn`, as the program that it is compiled to."""
    del known
    return count(functools.partial(equation.primitive.impl, **equation.params), *map(type_of, equation.invars))


def _masked_product(equation: JaxprEqn, known: Known) -> Flops:
    """Of a product that asks the running program whether NaN is masked: its einsum, which runs if there is none."""
    out, right_axes = equation.params["out"], equation.params["right_axes"]
    if len(equation.invars) < 4 or {"t", "s"} <= set(out):
        return _own(equation, known)
    sizes: dict[str, int] = {}
    for variable, axes in zip(equation.invars, (equation.params["left_axes"], right_axes), strict=False):
        shape = shape_of(variable)
        sizes |= dict(zip(axes, shape[len(shape) - len(axes) :], strict=True))
    mapped = math.prod(shape_of(equation.outvars[0])[: -len(out)])
    return Flops(2 * mapped * math.prod(sizes.values()), estimated=frozenset({"attn_masked_product"}))


_PROGRAMS: dict[str, Callable[[JaxprEqn, Known], Flops]] = {
    "scan": _scan,
    "while": _while,
    "cond": _branches,
    "shard_map": _shard_map,
    "attn_tangent": _own,
    "attn_masked_product": _masked_product,
}
