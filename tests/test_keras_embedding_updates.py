"""The three ways of Adam with an embedding, in the study of what Keras does."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import attn
from scripts import keras_embedding_updates as study


def test_our_adam_sums_the_rows_of_a_word():
    """JAX's gradient of a table has the sum of the rows of each word, as NumPy's `summed` has it."""
    table, batches, slices = study.inputs()
    found = {way: study.adam(way, table, batches, slices) for way in ("summed", "unsummed", "lazy")}
    optimizer = attn.keras_adam(study.RATE, study.BETA_1, study.BETA_2, study.EPSILON)
    ours = jnp.asarray(table, jnp.float32)
    state = optimizer.init(ours)
    for step, (words, rows) in enumerate(zip(batches, slices, strict=True)):
        gradient = jax.grad(lambda x, words=words, rows=rows: jnp.sum(x[words] * rows.astype(np.float32)))(ours)
        updates, state = optimizer.update(gradient, state)
        ours = optax.apply_updates(ours, updates)
        assert isinstance(ours, jax.Array)
        np.testing.assert_allclose(ours, found["summed"][step], rtol=0, atol=3e-8)
        assert np.abs(ours - found["unsummed"][step]).max() > 5e-4
        assert step == 0 or np.abs(ours - found["lazy"][step]).max() > 5e-4


def test_the_ways_by_hand():
    """One step on one feature, from zero: a word with the gradients 3 and 4, and one that is not there."""
    ends = {}
    for way in ("summed", "unsummed", "lazy"):
        steps = study.adam(way, np.zeros((2, 1)), [np.array([[0, 0]]), np.array([[1, 1]])], [np.array([[[3.0], [4.0]]])] * 2)
        ends[way] = [step.ravel() for step in steps]
    # Its first step is lr · (sum / √second moment): 7 / √49 and 7 / √25, short of epsilon.
    assert ends["summed"][0] == pytest.approx([-1e-3, 0], rel=1e-6)
    assert ends["unsummed"][0] == pytest.approx([-1.4e-3, 0], rel=1e-6)
    assert ends["lazy"][0] == pytest.approx([-1e-3, 0], rel=1e-6)
    assert [ends[way][1][0] != ends[way][0][0] for way in ends] == [True, True, False], "does a word that is absent move?"


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs the extra bench")
def test_keras_on_tensorflow_does_not_sum():
    """If this fails, Keras has been corrected: then docs/reproduction/embedding-updates.md has to say so."""
    found = study.in_process(study.keras_tables, "tensorflow")
    table, batches, slices = study.inputs()
    unsummed, summed = (study.adam(way, table, batches, slices) for way in ("unsummed", "summed"))
    np.testing.assert_allclose(found, unsummed, rtol=0, atol=5e-8)
    assert (np.abs(np.subtract(found, summed)).max((1, 2)) > 5e-4).all()
