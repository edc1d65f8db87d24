"""The four models: their parameter counts, what padding may change, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from attn.models.classifier import Classifier, ClassifierConfig, mean_pool
from attn.positions import KINDS
from experiments import settings

pytestmark = pytest.mark.usefixtures("fast_compilation")
COUNTS = {"single_head": 160_036, "multi_head": 160_630, "transformer": 164_386, "transformer_positional": 168_482}


def model_of(page: str, **changes) -> Classifier:
    config = settings.model_config(settings.load_page(page, "imdb"), vocabulary_size=10_000, max_length=256)
    return Classifier(dataclasses.replace(config, **changes))


def initial(model: Classifier, tokens: jax.Array):
    """Parameters that are all different from 0 and 1."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), tokens))
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=leaf.shape) / 3, jnp.float32) for leaf in leaves])


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


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_positions_sees_the_order_and_trains(kind):
    """The first two words change places: ALiBi's distances, and a mean over them, are blind to a whole turned round."""
    model = model_of("transformer", positions=kind, vocabulary_size=20, max_length=4, dropout_rate=0.0)
    tokens = jnp.array([[5, 3, 11, 7], [3, 5, 11, 7]])
    params = initial(model, tokens)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        logits = model.apply(params, tokens)
        return -jax.nn.log_softmax(logits)[0, 1], logits

    (before, logits), gradients = loss(params)
    assert np.allclose(*logits, atol=1e-5) is (kind == "none")
    (after, _), _ = loss(jax.tree.map(lambda leaf, slope: leaf - 0.05 * slope, params, gradients))
    assert after < before
    own = {"learned": ("embedding", "positions", "embedding"), "t5": ("relative_bias",)}.get(kind, ())
    trained = gradients["params"]
    for name in own:
        trained = trained[name]
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(trained))
    assert not own or np.abs(trained).max() > 1e-5


EMBED, HEADS, HEAD_DIM, LENGTH = 6, 2, 4, 5
SCORE_MODS = {
    "alibi": lambda score, b, n, t, s, p: score - (2**-4, 2**-8)[n] * abs(t - s),
    "t5": lambda score, b, n, t, s, p: score + p["table"][abs(s - t) + 16 * (s > t)][n],  # a bucket a distance up to 7
}


def turned(heads):
    """Llama's halves as complex numbers, times e^(i t θ)."""
    half = HEAD_DIM // 2
    angles = np.arange(LENGTH)[:, None, None] * 10_000.0 ** (-np.arange(half) / half)
    pairs = (heads[..., :half] + 1j * heads[..., half:]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_positions_is_where_it_belongs(kind):
    """Two layers of heads in NumPy: what is added, what is turned, and one table of T5's for both."""
    sizes = {"embed_dim": EMBED, "num_heads": HEADS, "key_dim": HEAD_DIM, "output_dims": (EMBED, 9)}
    model = model_of("multi_head", positions=kind, vocabulary_size=20, max_length=7, **sizes)
    tokens = jnp.array([5, 3, 11, 7, 3])
    params = initial(model, tokens)
    assert params["params"].keys() - {"relative_bias"} == {"embedding", "multi_head_0", "multi_head_1", "logits"}
    assert ("relative_bias" in params["params"]) is (kind == "t5")
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    x = p["embedding"]["tokens"]["embedding"][np.asarray(tokens)]
    angles = np.arange(LENGTH)[:, None] / 10_000 ** (np.arange(0, EMBED, 2) / EMBED)
    if kind == "learned":
        x = x + p["embedding"]["positions"]["embedding"][:LENGTH]
    elif kind == "sinusoidal":
        x[:, 0::2], x[:, 1::2] = x[:, 0::2] + np.sin(angles), x[:, 1::2] + np.cos(angles)
    elif kind == "sinusoidal_split":
        x = x + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    for layer in (p["multi_head_0"], p["multi_head_1"]):
        project = {
            name: np.einsum("td,dnh->tnh", x, w["kernel"]) + w["bias"] for name, w in layer.items() if w["bias"].ndim == 2
        }
        query, key = (turned(project[name]) if kind == "rotary" else project[name] for name in ("query", "key"))
        options = {"score_mod": SCORE_MODS.get(kind), "parameters": {"table": p["relative_bias"]} if kind == "t5" else None}
        heads = oracle.attend(query[None], key[None], project["value"][None], **options).output[0]
        out = layer["attention_output"]
        x = np.einsum("tnv,nvo->to", heads, out["kernel"]) + out["bias"]
    expected = x.mean(0) @ p["logits"]["kernel"] + p["logits"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(params, tokens), expected, atol=2e-6)


def test_mean_pool_by_hand():
    x = jnp.array([[[1.0, 4.0], [3.0, 8.0], [9.0, jnp.nan]]])
    np.testing.assert_allclose(mean_pool(x, jnp.array([[True, True, False]])), [[2, 6]])
    np.testing.assert_allclose(mean_pool(x, jnp.array([[False] * 3])), [[0, 0]])
    np.testing.assert_allclose(mean_pool(x[:, :2], None), [[2, 6]])


BAD = [
    ("transformer", {"body": "lstm"}, "body='lstm' is not one of attention, multi_head, transformer"),
    ("transformer", {"num_heads": 0}, "num_heads=0 is not positive"),
    ("transformer", {"num_classes": 1}, "num_classes=1 is less than 2"),
    ("transformer", {"dropout_rate": 1.5}, r"dropout_rate=1.5 is not in \[0, 1\)"),
    ("transformer", {"dropout_rate": float("nan")}, r"dropout_rate=nan is not in \[0, 1\)"),
    ("single_head", {"num_heads": 2}, "num_heads=2, key_dim=16: body 'attention' has no projections"),
    (
        "transformer",
        {"positions": "rotery"},
        "positions='rotery' is not one of none, learned, sinusoidal, sinusoidal_split, rotary",
    ),
    ("single_head", {"positions": "t5"}, "positions='t5' acts inside of projected heads: body 'attention' has no"),
    ("multi_head", {"positions": "rotary", "key_dim": 3}, "key_dim=3 is odd: positions='rotary' rotates pairs of channels"),
    (
        "transformer",
        {"positions": "sinusoidal_split", "embed_dim": 5},
        "embed_dim=5 is odd: positions='sinusoidal_split' pairs",
    ),
    ("multi_head", {"num_layers": 3}, r"output_dims=\(16, 20\) must be num_layers=3 positive sizes"),
]


@pytest.mark.parametrize("page, change, message", BAD)
def test_a_config_that_makes_no_model_is_refused(page, change, message):
    with pytest.raises(ValueError, match=message):
        model_of(page, **change)


def test_an_unknown_field_is_an_error():
    with pytest.raises(TypeError, match="num_head"):
        ClassifierConfig(num_head=2)  # type: ignore[call-arg]
