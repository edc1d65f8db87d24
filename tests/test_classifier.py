"""The four models: their parameter counts, what padding may change, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn.models.classifier import Classifier, ClassifierConfig, mean_pool
from experiments import settings

pytestmark = pytest.mark.usefixtures("fast_compilation")
COUNTS = {"single_head": 160_036, "multi_head": 160_630, "transformer": 164_386, "transformer_positional": 168_482}


def model_of(page: str, **changes) -> Classifier:
    config = settings.model_config(settings.load_page(page, "imdb"), vocabulary_size=10_000, max_length=256)
    return Classifier(dataclasses.replace(config, **changes))


def initial(model: Classifier, tokens: jax.Array):
    """Parameters that are all different from 0 and 1."""
    params = jax.jit(model.init)(jax.random.key(0), tokens)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [leaf + jnp.asarray(rng.normal(size=leaf.shape) / 10, jnp.float32) for leaf in leaves])


@pytest.mark.parametrize("page, count", COUNTS.items())
def test_parameter_counts_are_the_blogs(page, count):
    shapes = jax.eval_shape(model_of(page).init, jax.random.key(0), jnp.zeros((1, 256), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize("page", COUNTS)
def test_the_empty_review_gives_finite_logits_and_gradients(page):
    model = model_of(page, mask_padding=True, vocabulary_size=20, max_length=7)
    tokens = jnp.zeros((2, 7), jnp.int32)
    params = initial(model, tokens)

    def loss(params):
        logits = model.apply(params, tokens)
        return jnp.sum(logits[:, 1]), logits

    with jax.debug_nans(True):
        gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(logits, np.broadcast_to(params["params"]["logits"]["bias"], (2, 2)))
    np.testing.assert_array_equal(gradient["params"]["logits"]["bias"], [0, 2])


@pytest.mark.parametrize("page", COUNTS)
@pytest.mark.parametrize("masked", [True, False])
def test_more_padding_changes_the_logits_only_where_it_is_not_masked(page, masked):
    model = model_of(page, mask_padding=masked, vocabulary_size=20, max_length=9)
    tokens = jnp.array([[5, 3, 11, 7, 0, 0, 0, 0, 0]])
    params, apply = initial(model, tokens), jax.jit(model.apply)
    same = np.allclose(apply(params, tokens[:, :4]), apply(params, tokens), atol=1e-5)
    assert same is masked


def test_only_positions_see_the_order():
    tokens = jnp.array([[5, 3, 11, 7]])
    for page in COUNTS:
        model = model_of(page, vocabulary_size=20, max_length=4)
        params, apply = initial(model, tokens), jax.jit(model.apply)
        same = np.allclose(apply(params, tokens), apply(params, tokens[:, ::-1]), atol=1e-5)
        assert same is (page != "transformer_positional")


def test_mean_pool_by_hand():
    x = jnp.array([[[1.0, 4.0], [3.0, 8.0], [9.0, jnp.nan]]])
    np.testing.assert_allclose(mean_pool(x, jnp.array([[True, True, False]])), [[2, 6]])
    np.testing.assert_allclose(mean_pool(x, jnp.array([[False] * 3])), [[0, 0]])
    np.testing.assert_allclose(mean_pool(x[:, :2], None), [[2, 6]])


BAD = [
    ("transformer", {"body": "lstm"}, "body='lstm' is none of attention, multi_head, transformer"),
    ("transformer", {"num_heads": 0}, "num_heads=0 is not positive"),
    ("transformer", {"num_classes": 1}, "num_classes=1 is less than 2"),
    ("transformer", {"dropout_rate": 1.5}, r"dropout_rate=1.5 is not in \[0, 1\)"),
    ("transformer", {"dropout_rate": float("nan")}, r"dropout_rate=nan is not in \[0, 1\)"),
    ("single_head", {"num_heads": 2}, "num_heads=2, key_dim=16: body 'attention' has no projections"),
    ("multi_head", {"num_layers": 3}, r"output_dims=\(16, 20\) does not hold num_layers=3 positive sizes"),
]


@pytest.mark.parametrize("page, change, message", BAD)
def test_a_config_that_makes_no_model_is_refused(page, change, message):
    with pytest.raises(ValueError, match=message):
        model_of(page, **change)


def test_an_unknown_field_is_an_error():
    with pytest.raises(TypeError, match="num_head"):
        ClassifierConfig(num_head=2)  # type: ignore[call-arg]
