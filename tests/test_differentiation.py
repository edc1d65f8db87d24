"""Forward mode, and derivatives of derivatives, of the kernels that have a backward pass of their own."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import KEY, QUERY, VALUE, S, T, random
from jax.sharding import AxisType, PartitionSpec

import attn
from attn.kernels.chunked import autodiff

pytestmark = pytest.mark.usefixtures("fast_compilation")
NAMES = ("cosine", "additive masked, scaled", "bias", "lengths", "score_mod", "sink", "sigmoid", "dropout", "mask")
INPUTS = {"query": QUERY, "key": KEY, "value": VALUE}
TANGENTS = {name: random(*array.shape, 1)[..., 0] for name, array in INPUTS.items()}
LENGTHS = np.array([0, 4])


def outputs(case, arrays):
    """Of the three functions: tile by tile, in a single tile, and pooled (by "pooled" where the mask permits it)."""
    rest = {name: array for name, array in arrays.items() if name not in INPUTS}
    run = functools.partial(attn.attend, **{name: arrays[name] for name in INPUTS}, **case.options(rest))
    return run(block=cases.TILE), run(), attn.attend_pooled(*run.args, **run.keywords)


def slope(function, arrays, tangents, step=1e-6):
    """The directional derivative by central differences."""
    ends = (function({name: arrays[name] + sign * step * tangents[name] for name in arrays}) for sign in (1, -1))
    return np.subtract(*ends) / (2 * step)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_is_the_slope_of_the_oracle(name):
    case = cases.CASES[name]
    with jax.enable_x64(True):
        arrays = {name: np.asarray(array, np.float64) for name, array in (INPUTS | case.parameters).items()}
        tangents = {name: np.asarray(random(2, *array.shape)[0], np.float64) for name, array in arrays.items()}

        def truth(arrays):
            parameters = {name: array for name, array in arrays.items() if name not in (*INPUTS, "bias")}
            inputs = (arrays[name] for name in INPUTS)
            return oracle.attend(*inputs, parameters=parameters, bias=arrays.get("bias"), **case.truth).output

        expected = slope(truth, arrays, tangents)
        _, (tiled, whole, pooled) = jax.jit(functools.partial(jax.jvp, functools.partial(outputs, case)))(
            (arrays,), (tangents,)
        )
    for found, wanted in ((tiled, expected), (whole, expected), (pooled, expected.mean(axis=1))):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


def test_by_hand():
    """One query of 0 and two keys: weights ½ and ½, whose slopes by the query are ±¼ · (key 0 − key 1)."""
    key, value = jnp.array([[[[2.0]], [[-1.0]]]]), jnp.array([[[[5.0]], [[1.0]]]])
    run = lambda query: attn.attend(query, key, value)  # noqa: E731
    output, tangent = jax.jvp(run, (jnp.zeros((1, 1, 1, 1)),), (jnp.ones((1, 1, 1, 1)),))
    assert (output.item(), tangent.item()) == (3.0, 3.0)


def functions(kind):
    """Ours and the definition, of query, key and value, to a scalar."""
    if kind == "pooled":
        options = {"key_lengths": LENGTHS, "sink": random(cases.N)}
        ours = functools.partial(attn.attend_pooled, **options)
        return ours, functools.partial(ours, implementation="dense")
    table = jnp.asarray(random(cases.N, T + S - 1))
    options = {"score_mod": lambda s, b, h, q, k: s * table[h, k - q + T - 1], "key_lengths": LENGTHS}
    return (
        functools.partial(attn.attend, implementation="chunked", block=cases.TILE, **options),
        functools.partial(attn.attend, implementation="dense", **options),
    )


def derivatives(run):
    """Second derivatives in every order, and what `jax.vmap`, `jax.checkpoint` and loops make of the first."""
    arrays, tangents = tuple(map(jnp.asarray, INPUTS.values())), tuple(map(jnp.asarray, TANGENTS.values()))
    query, key, value = arrays
    loss = lambda *inputs: jnp.sum(jnp.sin(run(*inputs)))  # noqa: E731
    gradient = jax.grad(loss, (0, 1, 2))
    push = lambda *inputs: jax.jvp(run, inputs, tangents)[1]  # noqa: E731
    push_key = lambda query, tangent: jax.jvp(lambda key: run(query, key, value), (key,), (tangent,))[1]  # noqa: E731
    two = jnp.stack([tangents[1], -2 * key], 1)
    linear = jax.linearize(run, *arrays)[1]

    def step(query, scale):
        return query + scale * jnp.mean(run(query, key, value)), None

    def loop(query):
        return jax.lax.scan(jax.checkpoint(step), query, jnp.arange(1.0, 3.0))[0]

    return {
        "forward over forward": jax.jvp(push, arrays, tangents)[1],
        "forward over reverse": jax.jvp(gradient, arrays, tangents)[1],
        "reverse over forward": jax.grad(lambda *inputs: jnp.sum(jnp.sin(push(*inputs))), (0, 1, 2))(*arrays),
        "reverse over reverse": jax.vjp(gradient, *arrays)[1](tangents),
        "linearize": linear(*tangents),
        "its transpose": jax.linear_transpose(linear, *arrays)(jnp.cos(run(*arrays))),
        "vmap of vmap": jax.vmap(jax.vmap(push_key, (None, 1)), (0, None))(jnp.stack([query, 2 * query, -query]), two),
        "gradient of a vmap of jvp": jax.grad(lambda q: jnp.sum(jnp.cos(jax.vmap(push_key, (None, 1))(q, two))))(query),
        "gradient of a scan": jax.grad(lambda query: jnp.sum(loop(query) ** 2))(query),
    }


@pytest.mark.parametrize("kind", ["chunked", "pooled"])
def test_any_order_of_derivatives_is_that_of_the_definition(kind):
    found, expected = (jax.jit(functools.partial(derivatives, run))() for run in functions(kind))
    for name, wanted in expected.items():
        for mine, other in zip(jax.tree.leaves(found[name]), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5 * np.abs(other).max(), err_msg=name)


@pytest.mark.parametrize("kind", ["chunked", "pooled"])
def test_the_jacobians_of_both_modes(kind):
    ours, _ = functions(kind)
    by_columns, by_rows = (jacobian(ours, 2)(QUERY, KEY, VALUE) for jacobian in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(by_columns, by_rows, atol=1e-6)


@pytest.mark.parametrize("kind", ["chunked", "pooled"])
def test_forward_mode_inside_and_around_shard_map(kind):
    mesh, shards = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,)), PartitionSpec("batch")
    arrays, tangents = tuple(INPUTS.values()), tuple(TANGENTS.values())
    run = functools.partial(attn.attend, block=cases.TILE) if kind == "chunked" else attn.attend_pooled
    sharded = jax.shard_map(run, mesh=mesh, in_specs=shards, out_specs=shards)
    push = lambda run, *both: jax.jvp(run, both[:3], both[3:])[1]  # noqa: E731
    inside = jax.shard_map(functools.partial(push, run), mesh=mesh, in_specs=shards, out_specs=shards)

    @jax.jit
    def three(*both):
        return push(run, *both), push(sharded, *both), inside(*both)

    expected, *others = three(*arrays, *tangents)
    for found in others:
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_what_is_not_differentiated_cannot_spoil_the_tangent():
    """√ has an infinite slope at 0, and 0 · ∞ is NaN: the table has no tangent, so that its slope is not asked for."""
    table = jnp.zeros(cases.N)
    run = functools.partial(attn.attend, key=KEY, value=VALUE, score_mod=lambda s, b, h, q, k: s + jnp.sqrt(table[h]))
    plain = functools.partial(attn.attend, key=KEY, value=VALUE)
    found, expected = (jax.jvp(f, (QUERY,), (TANGENTS["query"],))[1] for f in (run, plain))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_gradient_is_that_of_the_backward_pass(monkeypatch):
    """`jax.grad` pulls through the kernel's own backward pass, and neither runs nor traces the twin."""

    def refuse(*_):
        raise AssertionError("the twin was traced")

    monkeypatch.setattr(autodiff, "attention", refuse)
    run = functools.partial(attn.attend, key=KEY[:, :5], value=VALUE[:, :5], causal=True, block=(3, 2))
    assert np.isfinite(jax.grad(lambda query: jnp.sum(run(query)))(QUERY)).all()
    with pytest.raises(AssertionError, match="the twin was traced"):
        jax.jvp(run, (QUERY,), (QUERY,))
