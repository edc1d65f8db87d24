"""The matrix: every public function and layer under every transformation, against the plain result."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformations
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from test_sharding import COLLECTIVE
from transformations import COLUMNS, Row, rows

import attn

PAGE = Path(__file__).parent.parent / "docs" / "transformations.md"

pytestmark = pytest.mark.usefixtures("fast_compilation")
each_row = pytest.mark.parametrize("name", rows())


def close(found: Any, expected: Any, tolerance: float = 5e-6) -> None:
    for array, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        other = np.asarray(other, np.float64)
        assert np.isfinite(other).all()
        np.testing.assert_allclose(np.asarray(array, np.float64), other, rtol=0, atol=tolerance * max(1, np.abs(other).max()))


def differentiable(row: Row, arrays: list[Any]) -> tuple[Any, Any]:
    """The function of all floating point inputs, the parameters too, and these inputs."""
    floats = [i for i, array in enumerate(arrays) if jnp.issubdtype(array.dtype, jnp.inexact)]

    def function(parameters: Any, *chosen: Any) -> Any:
        merged = list(arrays)
        for index, array in zip(floats, chosen, strict=True):
            merged[index] = array
        return row.run(parameters, *merged)

    return function, (row.parameters, *(arrays[i] for i in floats))


def like(tree: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), tree)


def inner(a: Any, b: Any) -> Any:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@functools.cache
def plain(name: str, b: int = transformations.B, t: int = transformations.T, seed: int = 0) -> Any:
    row = rows()[name]
    return jax.jit(row.run)(row.parameters, *row.arrays(b, t, seed))


@each_row
def test_derivatives_batches_and_loops(name):
    """eager, vmap, nested vmap, grad, jvp, hvp, checkpoint, scan: one program but for the first."""
    row = rows()[name]
    first, second = row.arrays(), row.arrays(seed=1)
    function, inputs = differentiable(row, [*map(jnp.asarray, first)])
    directions = like(inputs, 2), like(inputs, 3)

    @jax.jit
    def program(first: list[Any], second: list[Any]) -> dict[str, Any]:
        stacked = [jnp.stack(pair) for pair in zip(first, second, strict=True)]
        run = functools.partial(row.run, row.parameters)
        output, pull = jax.vjp(function, *inputs)
        cotangent = like(output, 4)
        gradient = pull(cotangent)
        tangent = jax.jvp(function, inputs, directions[0])[1]

        def slope(*inputs: Any) -> Any:
            return jax.grad(lambda x: jnp.sum(jnp.sin(jax.tree.leaves(function(*x))[0])))(inputs)

        curved = [jax.jvp(slope, inputs, direction)[1] for direction in directions]
        found = {
            "vmap": jax.vmap(run)(*stacked),
            "nested vmap": jax.vmap(jax.vmap(run))(*(array[jnp.array([[0, 1], [1, 0], [1, 1]])] for array in stacked)),
            "jvp": (inner(tangent, cotangent), inner(gradient, directions[0])),
            "hvp": (inner(curved[0], directions[1]), inner(curved[1], directions[0])),
            "checkpoint": (jax.vjp(jax.checkpoint(function), *inputs)[1](cotangent), gradient),
            "grad": gradient,
        }
        if row.chained:

            def thrice(array: Any, loop: bool) -> Any:
                if loop:
                    return jax.lax.scan(lambda x, _: (run(x, *first[1:]), None), array, None, length=3)[0]
                return run(run(run(array, *first[1:]), *first[1:]), *first[1:])

            def total(array: Any, loop: bool) -> Any:
                return jnp.sum(jnp.sin(thrice(array, loop)))

            found["scan"] = tuple(jax.value_and_grad(total)(first[0], loop) for loop in (True, False))
        return found

    found = program([*map(jnp.asarray, first)], [*map(jnp.asarray, second)])
    expected = plain(name), plain(name, seed=1)
    close(row.run(row.parameters, *map(jnp.asarray, first)), expected[0])
    for index in (0, 1):
        close(jax.tree.map(lambda x: x[index], found["vmap"]), expected[index])  # noqa: B023
        close(jax.tree.map(lambda x: x[1, 1 - index], found["nested vmap"]), expected[index])  # noqa: B023
    for column in ("jvp", "hvp", "checkpoint", *(["scan"] if row.chained else [])):
        close(*found[column], tolerance=1e-4)
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(found["grad"]))
    assert abs(found["hvp"][0]) > 0


@each_row
def test_meshes(name):
    """shard_map, sharded jit, explicit mesh: the values, their sharding, and the gradients of the arrays."""
    row = rows()[name]
    arrays = row.arrays()

    def run(*arrays: Any) -> Any:
        return row.run(row.parameters, *arrays)

    def gradients(*arrays: Any) -> Any:
        function, inputs = differentiable(row, list(arrays))
        output, pull = jax.vjp(lambda *chosen: function(row.parameters, *chosen), *inputs[1:])
        return output, pull(output)

    def spec(axis: int) -> PartitionSpec:
        return PartitionSpec(*(None for _ in range(axis)), "shard")

    expected = jax.jit(gradients)(*arrays)
    automatic = jax.make_mesh((2,), ("shard",), axis_types=(AxisType.Auto,))
    for of_arrays, of_results in [(0, 0), *([(2, row.heads)] if row.heads else [])]:
        # Each shard of the heads gets its own columns of the table, since the indices of heads begin at 0 in a shard.
        of_parameters = (
            PartitionSpec(None, "shard") if of_arrays == 2 and isinstance(row.parameters, np.ndarray) else PartitionSpec()
        )
        specs = (of_parameters, *(spec(of_arrays) for _ in arrays))
        mapped = jax.shard_map(row.run, mesh=automatic, in_specs=specs, out_specs=spec(of_results))
        close(jax.jit(mapped)(row.parameters, *arrays), expected[0])
        placed = [jax.device_put(array, NamedSharding(automatic, spec(of_arrays))) for array in arrays]
        program = jax.jit(gradients).lower(*placed).compile()
        assert COLLECTIVE.findall(program.as_text()) == []
        found = program(*placed)
        close(found, expected)
        for axis, tree in zip((of_results, of_arrays), found, strict=True):
            for array in filter(np.any, jax.tree.leaves(tree)):  # a gradient of zeros is on all devices
                assert array.sharding.is_equivalent_to(NamedSharding(automatic, spec(axis)), array.ndim)
    explicit = jax.make_mesh((2,), ("shard",))
    for axis in (0, 1, *([2] if row.heads else [])):
        with jax.set_mesh(explicit):
            placed = [jax.device_put(array, NamedSharding(explicit, spec(axis))) for array in arrays]
            found = jax.jit(gradients)(*placed)
            close(found, expected)
            for array, other in zip(jax.tree.leaves(found[1]), placed, strict=False):
                assert jax.typeof(array).sharding.spec == jax.typeof(other).sharding.spec


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")  # a result has another shape
@each_row
def test_export_dtypes_and_donation(name):
    """export with symbolic sizes, 16 bits, float64, donated inputs."""
    row = rows()[name]
    for names in ("b", "b, t"):
        if f"export {names}" in row.not_applicable:
            continue
        symbols = dict(zip("bt", jax.export.symbolic_shape(names), strict=False))
        shapes = [
            jax.ShapeDtypeStruct(
                (symbols["b"], symbols.get("t", n) if n == transformations.T else n, *rest), jnp.float32 if shape else jnp.int32
            )
            for shape in row.shapes
            for _, n, *rest in [shape or (0, transformations.T)]
        ]
        export = jax.export.export(jax.jit(functools.partial(row.run, row.parameters)))
        if message := dict(row.refused).get(f"export {names}"):
            with pytest.raises(ValueError, match=re.escape(message)):
                export(*shapes)
            continue
        exported = export(*shapes)
        sizes = (1, transformations.T), (3, 3 if name == "Classifier" else 7) if names == "b, t" else (3, transformations.T)
        for b, t in sizes:
            close(exported.call(*row.arrays(b, t)), plain(name, b, t))
    if "16 bits" not in row.not_applicable:
        for dtype, tolerance in ((jnp.float16, 0.01), (jnp.bfloat16, 0.06)):
            parameters, arrays = jax.tree.map(lambda x: jnp.asarray(x, dtype), (row.parameters, row.arrays()))  # noqa: B023
            found = jax.jit(row.run)(parameters, *arrays)
            close(found, plain(name), tolerance)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, (row.parameters, row.arrays()))
        found = jax.jit(row.run)(wide[0], *wide[1])
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float64)}
        close(found, plain(name))
    donated = jax.jit(row.run, donate_argnums=1, keep_unused=True)
    given = [jnp.array(array) for array in row.arrays()]
    close(donated(row.parameters, *given), plain(name))
    if row.chained:
        assert given[0].is_deleted()  # its memory was reused for the result


@pytest.mark.parametrize("implementation", ["auto", "dense", "chunked_autodiff"])
def test_vmap_over_masks_alone(implementation):
    """Of an axis that query, key and value lack: a mask, lengths, and the random key of dropout."""
    query, key, value = (jnp.asarray(array) for array in rows()["attend"].arrays())
    rng = np.random.default_rng(6)
    masks = jnp.asarray(rng.random((3, transformations.B, 1, transformations.T, transformations.S)) < 0.6)
    lengths = jnp.asarray(rng.integers(0, transformations.S, (3, transformations.B)))
    keys = jax.random.split(jax.random.key(0), 3)

    def run(mask: Any, lengths: Any, dropout_rng: Any) -> Any:
        options = {"mask": mask, "key_lengths": lengths, "dropout_rate": 0.4, "dropout_rng": dropout_rng}
        return jax.grad(
            lambda value: jnp.sum(jnp.sin(attn.attend(query, key, value, implementation=implementation, **options)))
        )(value)

    found, expected = jax.jit(lambda *x: (jax.vmap(run)(*x), jnp.stack([run(*(y[i] for y in x)) for i in range(3)])))(
        masks, lengths, keys
    )
    close(found, expected)
    assert np.abs(expected[0] - expected[1]).max() > 1e-2


def table() -> str:
    """The table of the page."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "| --- |" + " :-: |" * len(COLUMNS)]
    for name, row in rows().items():
        absent = (*row.not_applicable, *(["scan"] if not row.chained else []))
        refused = dict(row.refused)
        cells = ["–" if column in absent else "refused" if column in refused else "✓" for column in COLUMNS]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    meanings = [f"- **{column}**: {meaning}." for column, meaning in COLUMNS.items()]
    refusals = [f"- `{name}` refuses {column}: `{line}`." for name, row in rows().items() for column, line in row.refused]
    return "\n".join([*lines, "", *meanings, "", *refusals])


def test_the_page_has_this_table():
    found = re.search(r"(?s)<!-- table -->\n(.*)\n<!-- end of the table -->", PAGE.read_text(encoding="utf-8"))
    assert found, "docs/transformations.md has no marks for the table"
    assert found[1] == table(), f"docs/transformations.md must hold this table:\n{table()}"
