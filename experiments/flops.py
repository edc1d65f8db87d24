"""Counts the floating-point operations of a function on its jaxpr, with the bodies of loops times their trip counts.

XLA's own `cost_analysis()` counts a loop's body once, however often it runs. Without loops, the two counts are equal: a product
of a sum is two operations, an element of an elementwise result is one, and transcendental functions are counted apart.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.interpreters.partial_eval import dce_jaxpr


class Flops(NamedTuple):
    """What a function computes.

    Attributes:
      flops: The operations, without those of transcendental functions.
      transcendentals: The results of transcendental functions, such as exp.
      estimated: The operations that could only be estimated, or are not known and count as nothing, by name.
    """

    flops: float = 0.0
    transcendentals: float = 0.0
    estimated: frozenset[str] = frozenset()

    def __add__(self, other: "Flops") -> "Flops":  # type: ignore[override]
        return Flops(self.flops + other.flops, self.transcendentals + other.transcendentals, self.estimated | other.estimated)

    def times(self, number: float) -> "Flops":
        """Returns the same, done so many times."""
        return Flops(number * self.flops, number * self.transcendentals, self.estimated)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MOVES = _names("""
    reshape broadcast_in_dim transpose slice dynamic_slice dynamic_update_slice gather concatenate pad squeeze rev iota copy
    split stop_gradient pvary pcast bitcast_convert_type expand_dims device_put sharding_constraint optimization_barrier top_k
    all_gather all_to_all ppermute axis_index random_wrap random_unwrap empty reshard layout_constraint name reduce_precision
""")
_ONE_EACH = _names("""
    add sub mul div max min neg abs sign floor ceil round eq ne lt le gt ge select_n convert_element_type is_finite and or not
    xor shift_left shift_right_logical shift_right_arithmetic rem square add_any nextafter population_count clz psum
    psum_invariant pmax pmin exp2
""")
_TRANSCENDENTAL = _names("exp exp2 log log1p expm1 tanh sin cos tan sqrt rsqrt cbrt erf pow atan2 logistic")
_REDUCTIONS = _names("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor")
_WINDOWS = _names("cumsum cumprod cummax cummin")
_CALLS = _names("""
    jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call custom_vjp_call_jaxpr custom_lin
    custom_vmap_call
""")
_LOGISTIC = 3  # 1 / (1 + exp(-x)) beside the exp
_ARGMAX = 9  # comparisons and selections of a pair of value and index
_RANDOM = 30  # integer operations of a word of threefry


def count(function: Callable, *arguments: Any) -> Flops:
    """Counts the operations of a call.

    Args:
      function: A function of arrays.
      *arguments: Arrays, or trees of `jax.ShapeDtypeStruct`; nothing is computed.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    used, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))  # what has no use is not compiled
    return _of(used)


def _of(jaxpr: Jaxpr) -> Flops:
    return sum(map(_of_equation, jaxpr.eqns), Flops())


def _of_equation(equation: JaxprEqn) -> Flops:
    name = equation.primitive.name
    if name in _RULES:
        return _RULES[name](equation)
    inner = [each for value in equation.params.values() for each in _jaxprs(value)]
    if name in _CALLS:
        return sum(map(_of, inner), Flops())
    return sum(map(_of, inner), Flops(estimated=frozenset({name})))


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [each for item in value for each in _jaxprs(item)] if isinstance(value, tuple | list) else []


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _in(equation: JaxprEqn) -> int:
    return math.prod(_shape(equation.invars[0]))


def _out(equation: JaxprEqn) -> int:
    return math.prod(_shape(equation.outvars[0]))


def _elementwise(equation: JaxprEqn) -> Flops:
    name = equation.primitive.name
    each = (name in _ONE_EACH) + _LOGISTIC * (name == "logistic")
    return Flops(each * _out(equation), _out(equation) * (name in _TRANSCENDENTAL))


def _power(equation: JaxprEqn) -> Flops:
    """By squaring: a product for each bit but the first, and for each bit that is set but one; a division if negative."""
    exponent = equation.params["y"]
    bits = bin(abs(exponent))[2:]
    return Flops((len(bits) - 1 + bits.count("1") - 1 + (exponent < 0)) * _out(equation))


def _dot(equation: JaxprEqn) -> Flops:
    (contracted, _), _ = equation.params["dimension_numbers"]
    return Flops(2 * _out(equation) * math.prod(_shape(equation.invars[0])[axis] for axis in contracted))


def _convolution(equation: JaxprEqn) -> Flops:
    kernel = _shape(equation.invars[1])
    outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return Flops(2 * _out(equation) * math.prod(kernel) / outputs, estimated=frozenset({"conv_general_dilated"}))


def _masked_product(equation: JaxprEqn) -> Flops:
    """The einsum of attn.kernels.tiles.products, where nothing that is not finite is masked."""
    sizes: dict[str, int] = {}
    for variable, axes in zip(equation.invars, (equation.params["left_axes"], equation.params["right_axes"]), strict=False):
        shape = _shape(variable)
        sizes |= dict(zip(axes, shape[len(shape) - len(axes) :], strict=True))
    mapped = math.prod(_shape(equation.outvars[0])[: -len(equation.params["out"])])
    return Flops(2 * mapped * math.prod(sizes.values()), estimated=frozenset({"attn_masked_product"}))


def _window(equation: JaxprEqn) -> Flops:
    return Flops(_out(equation) * (_shape(equation.invars[0])[equation.params["axis"]] - 1))


def _sort(equation: JaxprEqn) -> Flops:
    return Flops(_in(equation) * math.ceil(math.log2(max(2, _in(equation)))), estimated=frozenset({"sort"}))


def _scan(equation: JaxprEqn) -> Flops:
    return _of(equation.params["jaxpr"].jaxpr).times(equation.params["length"])


def _while(equation: JaxprEqn) -> Flops:
    """A loop from one constant to another, as that of `fori_loop`; any other counts once."""
    body = _of(equation.params["body_jaxpr"].jaxpr)
    trips = _trips(equation)
    return body + Flops(estimated=frozenset({"while"})) if trips is None else body.times(trips)


def _trips(equation: JaxprEqn) -> int | None:
    condition = equation.params["cond_jaxpr"].jaxpr
    constants = equation.params["cond_nconsts"]
    carried = equation.invars[constants + equation.params["body_nconsts"] :]
    values = dict(zip(condition.invars, [*equation.invars[:constants], *carried], strict=True))
    if len(condition.eqns) != 1 or condition.eqns[0].primitive.name != "lt":
        return None
    low, high = (each if isinstance(each, Literal) else values.get(each) for each in condition.eqns[0].invars)
    if not isinstance(low, Literal) or not isinstance(high, Literal):
        return None
    return max(0, int(high.val) - int(low.val))


def _branches(equation: JaxprEqn) -> Flops:
    """The branch with the most operations."""
    return max((_of(branch.jaxpr) for branch in equation.params["branches"]), key=lambda each: each.flops)


def _shard_map(equation: JaxprEqn) -> Flops:
    mesh, axes = equation.params["mesh"], equation.params["newly_manual_axes"]
    return _of(_jaxprs(equation.params["jaxpr"])[0]).times(math.prod(mesh.shape[axis] for axis in axes))


_RULES: dict[str, Callable[[JaxprEqn], Flops]] = {
    **dict.fromkeys(_MOVES, lambda _: Flops()),
    **dict.fromkeys(_ONE_EACH | _TRANSCENDENTAL, _elementwise),
    **dict.fromkeys(_REDUCTIONS, lambda equation: Flops(_in(equation) - _out(equation))),
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(("argmax", "argmin"), lambda equation: Flops(_ARGMAX * (_in(equation) - _out(equation)))),
    **dict.fromkeys(
        ("random_bits", "threefry2x32", "random_seed", "random_fold_in", "random_split"),
        lambda equation: Flops(_RANDOM * max(1, _out(equation)), estimated=frozenset({"random numbers"})),
    ),
    "clamp": lambda equation: Flops(2 * _out(equation)),
    "integer_pow": _power,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "scatter-add": lambda equation: Flops(math.prod(_shape(equation.invars[2]))),
    "scatter": lambda _: Flops(),
    "sort": _sort,
    "attn_masked_product": _masked_product,
    "scan": _scan,
    "while": _while,
    "cond": _branches,
    "shard_map": _shard_map,
}
