"""Which functions share a compiled program, and which do not."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import score_mods
from attn.kernels.closures import trace

SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
INDEX = jax.ShapeDtypeStruct((), jnp.int32)


def program(function):
    return trace("score_mod", function, SCALAR, INDEX, INDEX, INDEX, INDEX)[0]


def with_slope(slope, kind="custom_jvp"):
    """score · 1.5, with this slope as its derivative."""
    if kind == "custom_jvp":
        function = jax.custom_jvp(lambda score: score * 1.5)
        function.defjvp(lambda primals, tangents: (primals[0] * 1.5, tangents[0] * slope))
    else:
        function = jax.custom_vjp(lambda score: score * 1.5)
        function.defvjp(lambda score: (score * 1.5, None), lambda _, gradient: (gradient * slope,))
    return function


def second_order(slope):
    """A function whose rule has a rule of its own: first derivatives are 1, the derivative of those is the slope."""
    inner = with_slope(slope)
    function = jax.custom_jvp(lambda score: score)
    function.defjvp(lambda primals, tangents: (primals[0], tangents[0] * inner(primals[0])))
    return function


MAKERS = {
    "where": lambda number: lambda s, b, h, i, j: jnp.where(i >= j, s, number),
    "clip": lambda number: lambda s, b, h, i, j: jnp.clip(s, -number, number),
    "relu": lambda number: lambda s, b, h, i, j: jax.nn.relu(s) * number,
    "remainder": lambda number: lambda s, b, h, i, j: s + (i - j) % int(number),
    "inner array": lambda number: lambda s, b, h, i, j: jax.jit(lambda s: s * np.array([number, 2.0], np.float32)[0])(s),
    "custom_jvp": lambda number: lambda s, b, h, i, j: with_slope(number)(s),
    "custom_vjp": lambda number: lambda s, b, h, i, j: with_slope(number, "custom_vjp")(s),
    "rule in jit": lambda number: lambda s, b, h, i, j: jax.jit(with_slope(number))(s),
    "rule in cond": lambda number: lambda s, b, h, i, j: jax.lax.cond(i > j, with_slope(number), with_slope(2.0), s),
    "rule in scan": lambda number: (
        lambda s, b, h, i, j: jax.lax.scan(lambda carry, _: (with_slope(number)(carry), None), s, None, length=2)[0]
    ),
    "rule with an array": lambda number: lambda s, b, h, i, j: with_slope(np.array([number, 1.0], np.float32)[0])(s),
    "softplus, whose rule calls itself": lambda number: lambda s, b, h, i, j: jax.nn.softplus(s * number),
    "relu in a while loop": lambda number: (
        lambda s, b, h, i, j: jax.lax.while_loop(lambda s: s > number, lambda s: jax.nn.relu(s - 1), s)
    ),
    "rule of a rule": lambda number: lambda s, b, h, i, j: second_order(number)(s),
}


@pytest.mark.parametrize("name", MAKERS)
def test_equal_functions_made_twice_are_one_program_and_others_are_not(name):
    same, again, other = (program(MAKERS[name](number)) for number in (3.0, 3.0, 5.0))
    assert same == again and hash(same) == hash(again)
    assert same != other


def test_rules_of_the_fourth_derivative_are_told_apart():
    """Two functions that agree in all that is compared as text, and in whose innermost rules they differ."""

    def nested(slope, depth):
        function = jax.custom_jvp(lambda score: score)
        inner = with_slope(slope) if depth == 0 else nested(slope, depth - 1)
        function.defjvp(lambda primals, tangents: (primals[0], tangents[0] * inner(primals[0])))
        return function

    one, other = (nested(slope, 4) for slope in (3.0, 5.0))
    assert program(lambda s, b, h, i, j: one(s)) == program(lambda s, b, h, i, j: one(s))
    assert program(lambda s, b, h, i, j: one(s)) != program(lambda s, b, h, i, j: other(s))


def test_nothing_is_compiled_and_nothing_grows_over_many_calls():
    """Functions that are made anew for each call, as in a training loop without `jit`."""
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(1, 5, 2, 3)), jnp.float32) for _ in range(3))
    table = jnp.asarray(rng.normal(size=(8, 2)), jnp.float32)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )

    def call():
        attn.attend(query, key, value, score_mod=MAKERS["where"](-5.0))
        attn.attend(query, key, value, score_mod=MAKERS["relu"](2.0), mask_mod=lambda b, h, i, j: (i - j) % 2 == 0)
        attn.attend(query, key, value, score_mod=score_mods.t5_relative_bias(table), score=lambda q, k: jnp.linalg.norm(q - k))

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    call()
    compiled.clear()
    for _ in range(5):
        call()
    before = resident()
    for _ in range(60):
        call()
    assert not compiled
    assert resident() - before < 8 * 2**20
