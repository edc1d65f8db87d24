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
NAMES = ["additive", "lengths", "causal, bottom right", "score_mod", "sink", "dropout", "mask"]

pytestmark = [pytest.mark.usefixtures("fast_compilation")]


def attention(implementation: str, block: tuple[int, int] | None, query, key, value):
    """The outputs and gradients of all cases, in one program."""
    found = {}
    for name, case in ((name, cases.CASES[name]) for name in NAMES):
        # The parameters are on all devices. Their gradients, which are not taken here, are sums over the devices.
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


@pytest.mark.parametrize("sizes", ["b", "b, t", "b, t, s"])
def test_export_of_symbolic_sizes(sizes):
    """One exported program gives the outputs and gradients of two sizes."""
    symbols = dict(zip("bts", jax.export.symbolic_shape(sizes), strict=False))

    def shapes(b, t, s):
        return (b, t, cases.N, cases.H), (b, s, cases.K, cases.H), (b, s, cases.K, cases.V)

    def run(query, key, value):
        lengths = jnp.full(query.shape[:1], 4)
        attend = functools.partial(attn.attend, key_lengths=lengths, score_mod=attn.score_mods.alibi(cases.N))
        output, pull = jax.vjp(attend, query, key, value)
        return output, *pull(output), attn.attend_pooled(query, key, value, causal="bottom_right")

    unknown = (symbols.get("b", 2), symbols.get("t", 5), symbols.get("s", 7))
    exported = jax.export.export(jax.jit(run))(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes(*unknown)))
    for known in ((1, 5, 7), (3, 9 if "t" in symbols else 5, 11 if "s" in symbols else 7)):
        arrays = [cases.random(*shape) for shape in shapes(*known)]
        for found, expected in zip(exported.call(*arrays), jax.jit(run)(*arrays), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_a_block_of_an_unknown_length_is_refused():
    b, t = jax.export.symbolic_shape("b, t")
    query = jax.ShapeDtypeStruct((b, t, 2, 3), jnp.float32)
    with pytest.raises(ValueError, match="block=4 needs lengths that are known: these are t and t"):
        jax.export.export(jax.jit(lambda x: attn.attend(x, x, x, block=4)))(query)


@pytest.mark.parametrize("spec", [*SPECS.values(), PartitionSpec(None, "shard")], ids=[*SPECS, "length"])
def test_an_explicit_mesh_changes_no_number(spec):
    """Functions of the caller too, whose captured arrays belong to the mesh."""
    table = np.linspace(-1, 1, cases.N).astype(np.float32)

    def run(query, key, value, table):
        def attend(query, key, value, table):
            mod = lambda score, batch, head, q, k: score + jnp.where(q > k, table.at[head].get(), 0)  # noqa: E731
            return attn.attend(query, key, value, score_mod=mod, key_lengths=jnp.array([4, 7]))

        output, pull = jax.vjp(attend, query, key, value, table)
        return output, *pull(output), attn.attention_statistics(query, key).lse

    arrays = [*(array[:, :4] for array in (QUERY, KEY, VALUE)), table]
    expected = jax.jit(run)(*arrays)
    mesh = jax.make_mesh((2,), ("shard",))
    with jax.set_mesh(mesh):
        sharded = [jax.device_put(array, NamedSharding(mesh, spec)) for array in arrays[:3]]
        found = jax.jit(run)(*sharded, jnp.asarray(table))
    assert jax.typeof(found[0]).sharding.spec == PartitionSpec(*spec, *(None,) * (4 - len(spec)))
    for array, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, other, rtol=0, atol=2e-6 * np.abs(other).max())
