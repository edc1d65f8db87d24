"""The operations of one equation of a jaxpr that holds no further program, counted as XLA's `cost_analysis()` counts them.

A product of a sum is two operations, an element of an elementwise result is one, and moving data is none. Transcendental
functions are counted apart.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import JaxprEqn
from jax.lax import GatherScatterMode


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
        return Flops(number * self.flops, number * self.transcendentals, self.estimated if number else frozenset())


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MOVES = _names("""
    reshape broadcast_in_dim transpose slice dynamic_slice dynamic_update_slice concatenate stack pad squeeze rev iota copy
    split stop_gradient pvary pcast bitcast_convert_type expand_dims device_put sharding_constraint optimization_barrier
    all_gather all_to_all ppermute axis_index random_wrap random_unwrap empty reshard layout_constraint name
""")
_ONE_EACH = _names("""
    add sub mul div max min neg abs sign floor ceil round eq ne lt le gt ge select_n convert_element_type is_finite and or not
    xor shift_left shift_right_logical shift_right_arithmetic rem square add_any population_count clz psum psum_invariant pmax
    pmin exp2 clamp reduce_precision eq_to le_to lt_to
""")
_TRANSCENDENTAL = _names("exp exp2 log log1p expm1 tanh sin cos tan sqrt rsqrt cbrt erf pow atan2 logistic")
_ASKED = _names("""
    erfc erf_inv lgamma digamma asin acos atan sinh cosh asinh acosh atanh nextafter reduce_window_sum reduce_window_max
    reduce_window_min
""")
_REDUCTIONS = _names("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor")
_WINDOWS = _names("cumsum cumprod cummax cummin")
_LOGISTIC = 3  # 1 / (1 + exp(-x)) beside the exp
_ARGMAX = 9  # comparisons and selections of a pair of value and index
# Integer operations for a word or a key of threefry, whose twenty rounds a CPU runs in a loop.
_RANDOM = {"random_bits": 121, "random_split": 120, "random_fold_in": 118, "threefry2x32": 118, "random_seed": 1}


def of_equation(equation: JaxprEqn) -> Flops | None:
    """Counts an equation. Returns None if nothing is known of its primitive."""
    rule = _RULES.get(equation.primitive.name)
    return None if rule is None else rule(equation)


def type_of(variable: Any) -> jax.ShapeDtypeStruct:
    """Returns the shape and the dtype of a variable of a jaxpr."""
    return jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)


def shape_of(variable: Any) -> tuple[int, ...]:
    """Returns the shape of a variable of a jaxpr."""
    return variable.aval.shape


def _in(equation: JaxprEqn) -> int:
    return math.prod(shape_of(equation.invars[0]))


def _out(equation: JaxprEqn) -> int:
    return sum(math.prod(shape_of(variable)) for variable in equation.outvars)


def _elementwise(equation: JaxprEqn) -> Flops:
    name = equation.primitive.name
    each = (name in _ONE_EACH) + _LOGISTIC * (name == "logistic")
    return Flops(each * _out(equation), _out(equation) * (name in _TRANSCENDENTAL))


def _asked(equation: JaxprEqn) -> Flops:
    """What XLA says itself, of functions that it has as long polynomials."""
    arguments = map(type_of, equation.invars)
    cost = jax.jit(functools.partial(equation.primitive.bind, **equation.params)).lower(*arguments).cost_analysis()
    return Flops(cost.get("flops", 0.0), cost.get("transcendentals", 0.0)) if cost else Flops(estimated=_name(equation))


def _name(equation: JaxprEqn) -> frozenset[str]:
    return frozenset({equation.primitive.name})


def _power(equation: JaxprEqn) -> Flops:
    """By squaring: a product for each bit but the first, and for each bit that is set but one; a division if negative."""
    exponent = equation.params["y"]
    bits = bin(abs(exponent))[2:]
    return Flops((len(bits) - 1 + bits.count("1") - 1 + (exponent < 0)) * _out(equation))


def _dot(equation: JaxprEqn) -> Flops:
    (contracted, _), _ = equation.params["dimension_numbers"]
    return Flops(2 * _out(equation) * math.prod(shape_of(equation.invars[0])[axis] for axis in contracted))


def _convolution(equation: JaxprEqn) -> Flops:
    """Two for each product of an entry of the kernel and one of the input; padding and the holes of a dilation are none."""
    params, (left, kernel) = equation.params, map(shape_of, equation.invars)
    numbers = params["dimension_numbers"]
    pairs = 1
    for i, (low, _) in enumerate(params["padding"]):
        size, dilation = left[numbers.lhs_spec[2 + i]], params["lhs_dilation"][i]
        outputs = np.arange(shape_of(equation.outvars[0])[numbers.out_spec[2 + i]]) * params["window_strides"][i]
        taps = np.arange(kernel[numbers.rhs_spec[2 + i]]) * params["rhs_dilation"][i]
        at = outputs[:, None] + taps - low
        pairs *= int(np.sum((at >= 0) & (at <= (size - 1) * dilation) & (at % dilation == 0)))
    batch, outputs = (shape_of(equation.outvars[0])[axis] for axis in numbers.out_spec[:2])
    return Flops(2 * batch * outputs * kernel[numbers.rhs_spec[1]] * pairs)


def _gather(equation: JaxprEqn) -> Flops:
    """Out of bounds is none, or a fill value: three operations for each index, one "and" over those of a place, a selection."""
    if equation.params["mode"] != GatherScatterMode.FILL_OR_DROP:
        return Flops()
    *places, rank = shape_of(equation.invars[1])
    return Flops(math.prod(places) * (3 * rank + max(0, rank - 1)) + _out(equation))


def _scatter(equation: JaxprEqn) -> Flops:
    """A scalar operation for each update, if it is not only stored, and one for each index that is kept within the bounds."""
    clipped = equation.params["mode"] == GatherScatterMode.CLIP
    updates = math.prod(shape_of(equation.invars[2])) * (equation.primitive.name != "scatter")
    return Flops(updates + clipped * math.prod(shape_of(equation.invars[1])))


def _window(equation: JaxprEqn) -> Flops:
    return Flops(_out(equation) * (shape_of(equation.invars[0])[equation.params["axis"]] - 1))


def _sort(equation: JaxprEqn) -> Flops:
    return Flops(_in(equation) * math.ceil(math.log2(max(2, _in(equation)))), estimated=_name(equation))


def _random(equation: JaxprEqn) -> Flops:
    size = math.prod(shape_of(equation.outvars[0]))
    return Flops(_RANDOM[equation.primitive.name] * size, estimated=frozenset({"random numbers"}))


_RULES: dict[str, Callable[[JaxprEqn], Flops]] = {
    **dict.fromkeys(_MOVES, lambda _: Flops()),
    **dict.fromkeys(_ONE_EACH | _TRANSCENDENTAL, _elementwise),
    **dict.fromkeys(_ASKED, _asked),
    **dict.fromkeys(_REDUCTIONS, lambda equation: Flops(_in(equation) - _out(equation))),
    **dict.fromkeys(_WINDOWS, _window),
    **dict.fromkeys(_RANDOM, _random),
    **dict.fromkeys(("argmax", "argmin"), lambda equation: Flops(_ARGMAX * (_in(equation) - _out(equation)))),
    **dict.fromkeys(("sort", "top_k"), _sort),
    **dict.fromkeys(("scatter", "scatter-add", "scatter-sub", "scatter-mul", "scatter-min", "scatter-max"), _scatter),
    "integer_pow": _power,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "gather": _gather,
}
