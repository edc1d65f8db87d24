"""Growth: sequential steps and longest paths by hand, exponents, the committed figure, and attention between two sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax import lax

from attn.models.two_sequences import TwoSequenceAttention
from experiments.report import figure_files
from scripts import complexity, ledger_table, two_sequences
from scripts.growth import depth, kinds, reach

pytestmark = pytest.mark.usefixtures("fast_compilation")
X = jnp.ones((4, 3))


def test_sequential_steps_by_hand():
    def chain(x):
        return jnp.tanh(x @ X.T) + jnp.sin(x[:, :1])  # the product, tanh and the sum; sin is beside them

    def loop(x):
        return lax.scan(lambda carry, row: (jnp.tanh(carry * row), jnp.exp(jnp.exp(row))), x[0], x)

    assert depth.sequential_steps(chain, X) == 3
    assert depth.sequential_steps(jax.jit(chain), X) == 3
    assert depth.sequential_steps(loop, X) == 2 * 4, "two steps of the carry in each pass; what does not need it is beside them"
    with pytest.raises(ValueError, match="while: the number of its steps is not in the jaxpr"):
        depth.sequential_steps(lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), X)


@pytest.mark.parametrize("kind, layers", [("convolution", 10), ("recurrence", 21), ("attention, dense", 1)])
def test_the_longest_path_by_hand(kind, layers):
    """Of 21 inputs, a convolution over 5 reads 2 more on each side with each layer, and a recurrence one."""
    assert reach.longest_path(kind, 21) == layers


def test_the_products_are_most_of_the_operations():
    rows = complexity.read_rows(complexity.FOLDER)
    assert {row.kind for row in rows} == set(kinds.KINDS)
    for row in rows:
        assert row.products == kinds.KINDS[row.kind].products(row.n, row.m, row.d)
        assert 0.95 < row.flops / row.products < 1.13, row


def test_exponents_are_fitted_to_the_larger_half():
    sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    costs = [100.0, 100.0, 100.0, *(3 * size**1.5 for size in sizes[3:])]
    assert complexity.exponent(sizes, costs) == pytest.approx(1.5)


def test_the_page_and_the_figure_are_those_of_the_rows():
    rows, paths = complexity.read_rows(complexity.FOLDER), complexity.read(complexity.FOLDER / "paths.csv")
    page = (complexity.FOLDER.parent / "complexity.md").read_text()
    for table in complexity.tables_of(rows, paths).split("\n\n"):
        assert f"\n{table}\n" in page
    drawn = figure_files.drawn(complexity.figure(rows, paths))
    assert drawn == figure_files.drawn_in(complexity.FOLDER / "growth.png")


@pytest.mark.parametrize("choice", [("first", "second", "second"), ("second", "first", "second")])
def test_query_key_and_value_come_from_the_sequences_that_are_named(choice):
    """Against the float64 oracle; with key and value from one sequence, the other may have another length."""
    length = {"first": 4, "second": 4 if choice[1] != choice[2] else 6}
    rng = np.random.default_rng(0)
    sequences = {name: rng.normal(size=(length[name], width)) for name, width in (("first", 5), ("second", 3))}
    valid = {name: np.arange(length[name]) != 1 for name in sequences}
    layer = TwoSequenceAttention(2, 7, *choice, output_dim=8, implementation="dense")
    arguments = [jnp.asarray(x, jnp.float32) for x in sequences.values()] + [jnp.asarray(x) for x in valid.values()]
    params = layer.init(jax.random.key(0), *arguments)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"]["attention"])
    query, key, value = (
        np.einsum("td,dnh->tnh", sequences[source], p[name]["kernel"]) + p[name]["bias"]
        for name, source in zip(("query", "key", "value"), choice, strict=True)
    )
    allowed = (valid[choice[1]] & valid[choice[2]])[None, None, None]
    heads = oracle.attend(query[None], key[None], value[None], allowed=allowed).output[0]
    expected = np.einsum("tnv,nvo->to", heads, p["attention_output"]["kernel"]) + p["attention_output"]["bias"]
    np.testing.assert_allclose(layer.apply(params, *arguments), expected, atol=2e-6)


def test_a_key_without_a_value_is_refused():
    layer = TwoSequenceAttention(1, 2, "first", "second", "first")
    with pytest.raises(ValueError, match="key='second' has length 6 and value='first' has length 4: a weight belongs to"):
        layer.init(jax.random.key(0), jnp.ones((4, 3)), jnp.ones((6, 3)))
    with pytest.raises(ValueError, match="query='third' is not one of first, second"):
        TwoSequenceAttention(1, 2, "third", "second", "first")  # pyright: ignore[reportArgumentType]


def test_the_answers_of_the_task_are_those_of_a_search():
    found = two_sequences.examples(jax.random.key(0), 5)
    first = np.asarray(found.vectors)
    names = [first[..., : two_sequences.NAMES].argmax(-1), np.asarray(found.tokens) // two_sequences.COLOURS]
    colours = [first[..., two_sequences.NAMES :].argmax(-1), np.asarray(found.tokens) % two_sequences.COLOURS]
    for task, choice in enumerate(two_sequences.CHOICES):
        query, key, value = map(two_sequences.SEQUENCES.index, choice)
        for i in range(5):
            place = 1 + list(names[key][i, 1:]).index(names[query][i, 0])
            assert found.answers[i, task] == colours[value][i, place]


def test_the_table_of_classifiers_is_that_of_the_committed_runs():
    docs = complexity.FOLDER.parent
    reproduced = sorted((docs / "reproduction" / "runs").glob("*-seed_[0-4]-*"))
    ledgers = [str(docs / "complexity" / "runs"), *map(str, reproduced)]
    by = ["model.body", "model.cell", "model.positions"]
    assert f"\n{ledger_table.table(ledgers, 'imdb', by)}\n" in (docs / "complexity.md").read_text()
