"""Every implementation × score × mask × normaliser against the oracle: values, and gradients of all that is differentiated."""

import functools
from collections.abc import Iterator
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import CASES, COTANGENT, KEY, QUERY, VALUE

import attn

pytestmark = pytest.mark.usefixtures("fast_compilation")
IMPLEMENTATIONS = ("dense", "chunked", "chunked_autodiff")
TOLERANCES = {"float32": (2e-6, 1e-5), "float64": (1e-12, 1e-12)}  # of values, of gradients


def relative(actual, expected) -> float:
    """The largest difference over the largest entry."""
    return float(np.abs(np.asarray(actual, np.float64) - expected).max() / max(np.abs(expected).max(), 1e-300))


@functools.cache
def truth(name: str) -> oracle.Result:
    case = CASES[name]
    parameters = {k: v for k, v in case.parameters.items() if k != "bias"}
    return oracle.attend(QUERY, KEY, VALUE, COTANGENT, parameters=parameters, bias=case.parameters.get("bias"), **case.truth)


def options(name: str) -> dict:
    case = CASES[name]
    return case.options({name: jnp.asarray(array) for name, array in case.parameters.items()})


def errors(name: str, implementation: str, dtype: str) -> tuple[float, float]:
    """Of the output, and the worst of the gradients: the largest difference over the largest entry.

    A scalar's gradient is a sum whose terms cancel, so it is held against the largest entry of all gradients.
    """
    case, block = CASES[name], None if implementation == "dense" else cases.TILE
    with jax.enable_x64(dtype == "float64"), jax.debug_nans(True):
        arrays = {"query": QUERY, "key": KEY, "value": VALUE, **case.parameters}
        arrays = {name: jnp.asarray(array, dtype) for name, array in arrays.items()}

        def loss(arrays):
            parameters = {name: arrays[name] for name in case.parameters}
            qkv = (arrays[name] for name in ("query", "key", "value"))
            output = attn.attend(*qkv, **case.options(parameters), implementation=implementation, block=block)
            return jnp.sum(output * COTANGENT.astype(dtype)), output

        gradients, output = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    expected = truth(name)
    assert output.dtype == dtype
    assert gradients.keys() == expected.gradients.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.gradients.values())
    worst = 0.0
    for array, wanted in expected.gradients.items():
        difference = np.abs(np.asarray(gradients[array], np.float64) - wanted).max()
        worst = max(worst, difference / (np.abs(wanted).max() if wanted.ndim else largest))
    return relative(output, expected.output), worst


def runs() -> Iterator[Any]:
    """All pairs of a case, an implementation and a dtype; the rest of the product is marked `exhaustive`.

    Of the three implementations, one runs in float32, another one from case to case, and the others in float64.
    """
    for index, (name, case) in enumerate(CASES.items()):
        for place, implementation in enumerate(IMPLEMENTATIONS):
            for dtype in TOLERANCES:
                chosen = dtype == ("float32" if index % len(IMPLEMENTATIONS) == place else "float64") or case.dense_alone
                yield pytest.param(name, implementation, dtype, marks=[] if chosen else pytest.mark.exhaustive)


@pytest.mark.parametrize("name, implementation, dtype", list(runs()))
def test_values_and_gradients_are_the_oracles(name, implementation, dtype):
    case = CASES[name]
    if case.dense_alone and implementation != "dense":
        with pytest.raises(ValueError, match=f"implementation='{implementation}' does not honour normalizer="):
            attn.attend(QUERY, KEY, VALUE, implementation=implementation, **case.options({}))
        return
    value, gradient = errors(name, implementation, dtype)
    value_tolerance, gradient_tolerance = TOLERANCES[dtype]
    assert value <= value_tolerance
    assert gradient <= gradient_tolerance


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.parameters])
def test_the_oracles_gradients_are_those_of_finite_differences(name):
    case = CASES[name]
    for array in case.parameters:
        direction = np.random.default_rng(3).normal(size=np.shape(case.parameters[array]))

        def loss(step, array=array, direction=direction):
            moved = {k: np.float64(v) + (step * direction if k == array else 0) for k, v in case.parameters.items()}
            bias = moved.pop("bias", None)
            return (oracle.attend(QUERY, KEY, VALUE, parameters=moved, bias=bias, **case.truth).output * COTANGENT).sum()

        difference = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert difference == pytest.approx((truth(name).gradients[array] * direction).sum(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_weights_are_the_oracles(name):
    weights = jax.jit(lambda *inputs: attn.attention_weights(*inputs, **options(name)))(QUERY, KEY)
    assert relative(weights, truth(name).weights) <= 2e-6


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.dense_alone])
def test_no_two_implementations_are_one_program(name):
    """What the oracle agrees with three times is not one kernel under three names."""
    programs = {
        str(jax.make_jaxpr(lambda q, i=i: attn.attend(q, KEY, VALUE, implementation=i, **options(name)))(QUERY))
        for i in IMPLEMENTATIONS
    }
    assert len(programs) == len(IMPLEMENTATIONS)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_is_no_worse_than_a_float32_softmax_of_the_same_inputs(implementation):
    query, key, value = (jnp.asarray(x, jnp.bfloat16) for x in (QUERY, KEY, VALUE))
    output = attn.attend(query, key, value, implementation=implementation)
    assert output.dtype == jnp.bfloat16
    exact = oracle.attend(*(np.asarray(x, np.float64) for x in (query, key, value))).output
    assert relative(output, exact) <= 2**-8  # one rounding, of the output; bfloat16 scores would be off by 2e-2
