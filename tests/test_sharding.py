"""Arrays that are sharded over the batch or the heads, under `jit`: no collective, the same numbers, and gradients."""

import functools
import re

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import COTANGENT, KEY, QUERY, VALUE
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import attn

COLLECTIVE = re.compile(r" (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
SPECS = {"batch": PartitionSpec("shard"), "heads": PartitionSpec(None, None, "shard")}
# A captured parameter is on all devices, and its gradient is a sum over them.
OPTIONS = {name: case for name, case in cases.CASES.items() if not case.dense_alone}

pytestmark = [pytest.mark.usefixtures("fast_compilation")]


def attention(implementation: str, block: tuple[int, int] | None, query, key, value):
    """The outputs and gradients of all cases, in one program."""
    found = {}
    for name, case in OPTIONS.items():
        options = case.options({field: jnp.asarray(array) for field, array in case.parameters.items()})
        run = functools.partial(attn.attend, implementation=implementation, block=block, **options)
        output, pull = jax.vjp(run, query, key, value)
        found[name] = output, *pull(jnp.asarray(COTANGENT))
    return found


@pytest.mark.parametrize(("implementation", "block"), [("auto", None), ("chunked", cases.TILE), ("dense", None)])
def test_no_collective_and_the_same_numbers(implementation, block):
    mesh = jax.make_mesh((2,), ("shard",), axis_types=(AxisType.Auto,))
    run = jax.jit(functools.partial(attention, implementation, block))
    expected = run(QUERY, KEY, VALUE)
    for spec in SPECS.values():
        arrays = [jax.device_put(array, NamedSharding(mesh, spec)) for array in (QUERY, KEY, VALUE)]
        program = run.lower(*arrays).compile()
        assert COLLECTIVE.findall(program.as_text()) == []
        for name, found in program(*arrays).items():
            for array, other in zip(found, expected[name], strict=True):
                assert array.sharding.is_equivalent_to(NamedSharding(mesh, spec), array.ndim), name
                np.testing.assert_allclose(array, other, rtol=0, atol=3e-6 * np.abs(other).max(), err_msg=name)


def test_a_collective_is_found():
    """The sum over a sharded axis needs one: the expression that counts them can find it."""
    mesh = jax.make_mesh((2,), ("shard",), axis_types=(AxisType.Auto,))
    query = jax.device_put(QUERY, NamedSharding(mesh, SPECS["batch"]))
    assert COLLECTIVE.findall(jax.jit(jnp.sum).lower(query).compile().as_text())
