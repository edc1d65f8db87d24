"""linen's tools and lifts around every layer and model: `tabulate`, captures, interceptors, `nn.remat`, `nn.scan`, …."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from attn.layers import d2l, d2l_transformer, keras
from attn.models.classifier import Classifier, ClassifierConfig
from attn.positions import Relative, rotary

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, D, N, H, F = 2, 5, 6, 3, 4, 7
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D)).astype(np.float32)
TOKENS = RNG.integers(0, 9, (B, T)).astype(np.int32)
RNGS = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
MASK = np.arange(T) < np.array([[5], [3]])


def classifier(body: str, dropout_rate: float = 0.5, **fields) -> dict:
    single = body == "attention"
    config = ClassifierConfig(
        body=body, vocabulary_size=9, max_length=T, num_classes=2, embed_dim=D, num_layers=2, num_heads=1 if single else N,
        key_dim=D if single else H, output_dims=(F, D), feedforward_dim=F, positions="none" if single else "t5",
        dropout_rate=dropout_rate, mask_padding=True,
    )  # fmt: skip
    return {"config": config, **fields}


_BLOCK = {"num_hiddens": D, "ffn_num_hiddens": F, "num_heads": N, "dropout": 0.5}
FLAGGED = {  # class, fields, inputs
    "keras.Attention": (keras.Attention, {"use_scale": True, "score_mode": "concat", "dropout": 0.5}, (X, X)),
    "keras.AdditiveAttention": (keras.AdditiveAttention, {"dropout": 0.5}, (X, X)),
    "keras.MultiHeadAttention": (keras.MultiHeadAttention, {"num_heads": N, "key_dim": H, "dropout": 0.5}, (X, X)),
    "keras.MultiHeadAttention 2.11": (keras.MultiHeadAttention, {"num_heads": N, "key_dim": H, "version": "2.11"}, (X, X)),
    "keras.GroupQueryAttention": (
        keras.GroupQueryAttention,
        {"head_dim": H, "num_query_heads": 4, "num_key_value_heads": 2, "dropout": 0.5},
        (X, X),
    ),
    "keras.TransformerBlock": (
        keras.TransformerBlock,
        {"num_heads": N, "key_dim": H, "feedforward_dim": F, "dropout_rate": 0.5},
        (X,),
    ),
    "d2l.DotProductAttention": (d2l.DotProductAttention, {"dropout": 0.5}, (X, X, X)),
    "d2l.AdditiveAttention": (d2l.AdditiveAttention, {"num_hiddens": F, "dropout": 0.5}, (X, X, X)),
    "d2l.MultiHeadAttention": (d2l.MultiHeadAttention, {"num_hiddens": D, "num_heads": N, "dropout": 0.5}, (X, X, X)),
    "d2l.PositionalEncoding": (d2l_transformer.PositionalEncoding, {"num_hiddens": D, "dropout": 0.5}, (X,)),
    "d2l.AddNorm": (d2l_transformer.AddNorm, {"dropout": 0.5}, (X, X)),
    "d2l.TransformerEncoderBlock": (d2l_transformer.TransformerEncoderBlock, _BLOCK, (X,)),
    "d2l.TransformerEncoder": (d2l_transformer.TransformerEncoder, {"vocab_size": 9, "num_blks": 2, **_BLOCK}, (TOKENS,)),
    **{f"Classifier {body}": (Classifier, classifier(body), (TOKENS,)) for body in ("attention", "multi_head", "transformer")},
}  # fmt: skip
OTHERS = {
    "keras.TokenAndPositionEmbedding": (
        keras.TokenAndPositionEmbedding,
        {"vocabulary_size": 9, "embed_dim": D, "max_length": T},
        (TOKENS,),
    ),
    "d2l.PositionWiseFFN": (d2l_transformer.PositionWiseFFN, {"ffn_num_hiddens": F, "ffn_num_outputs": D}, (X,)),
}  # fmt: skip
DROPPING = {name: layer for name, layer in FLAGGED.items() if "2.11" not in name}
each = pytest.mark.parametrize("name", [*FLAGGED, *OTHERS])
each_dropping = pytest.mark.parametrize("name", DROPPING)


def initialised(cls, fields, inputs):
    """A layer, and variables that are all different."""
    layer = cls(**fields)
    leaves, tree = jax.tree.flatten(jax.eval_shape(layer.init, RNGS, *inputs))
    rng = np.random.default_rng(1)
    return layer, jax.tree.unflatten(tree, [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


@each
def test_everything_can_be_captured_and_intercepted_inside_of_jit(name):
    cls, fields, inputs = (FLAGGED | OTHERS)[name]
    layer, variables = initialised(cls, fields, inputs)
    paths = []

    def interceptor(call, args, kwargs, context):
        paths.append(context.module.path)
        return call(*args, **kwargs)

    @jax.jit
    def captured(variables, *inputs):
        with nn.intercept_methods(interceptor):
            return layer.apply(variables, *inputs, capture_intermediates=lambda module, method: True, mutable=["intermediates"])

    output, state = captured(variables, *inputs)
    np.testing.assert_array_equal(state["intermediates"]["__call__"][0], output)
    for path in jax.tree_util.tree_leaves_with_path(variables):
        assert tuple(key.key for key in path[0][1:-1]) in paths, "each module with parameters is passed by"


COPIES = {"in_axes": None, "variable_axes": {"params": None}, "split_rngs": {"params": False, "dropout": True}, "axis_size": 2}


@pytest.mark.parametrize("method", ["__call__", "mean", "attention_scores"])
@pytest.mark.parametrize("name", ["keras.Attention", "keras.MultiHeadAttention", "keras.GroupQueryAttention"])
def test_masks_and_functions_are_honoured_inside_of_lifts(name, method):
    cls, fields, inputs = FLAGGED[name]
    layer, variables = initialised(cls, fields, inputs)
    position = Relative(rotary if name != "keras.Attention" else lambda x: 2 * x)
    options = {"value_mask": MASK, "use_causal_mask": True, "position": position}
    expected = layer.apply(variables, *inputs, **options, method=method)
    plain = layer.apply(variables, *inputs, method=method)
    assert not np.allclose(expected, plain, atol=1e-3)
    for lifted in (nn.remat(cls, methods=[method]), nn.vmap(cls, methods=[method], **COPIES)):
        found = lifted(**fields).apply(variables, *inputs, **options, method=method)
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-5)
    again = cls(**fields, use_causal_mask=True, position=position).apply(variables, *inputs, value_mask=MASK, method=method)
    np.testing.assert_array_equal(again, expected)
    with pytest.raises(ValueError, match=r"^position holds functions: nn.jit may go on with those of an earlier call"):
        nn.jit(cls, methods=[method])(**fields).apply(variables, *inputs, **options, method=method)


@each_dropping
def test_a_flag_is_a_field_or_an_argument(name):
    cls, fields, inputs = FLAGGED[name]
    layer, variables = initialised(cls, fields, inputs)
    with pytest.raises(ValueError, match=r"^deterministic=False in the call of \w+\(…, deterministic=True\): give one"):
        cls(**fields, deterministic=True).apply(variables, *inputs, deterministic=False, rngs=RNGS)
    with pytest.raises(ValueError, match=r"^deterministic=True in the call of \w+\(…, deterministic=False\): give one"):
        nn.remat(cls)(**fields, deterministic=np.False_).apply(variables, *inputs, deterministic=True)
    with pytest.raises(ValueError, match=r"^deterministic=1 must be True or False"):
        layer.apply(variables, *inputs, deterministic=1)
    with pytest.raises(ValueError, match=r"^deterministic='no' must be True or False"):
        cls(**fields, deterministic="no")
    assert cls(**fields, deterministic=None) == layer


def test_the_causal_flag_and_positions_are_fields_or_arguments():
    layer = keras.Attention(use_causal_mask=np.False_, position=Relative())
    with pytest.raises(ValueError, match=r"^use_causal_mask=True in the call of Attention\(…, use_causal_mask=False\)"):
        layer.apply({}, X, X, use_causal_mask=True)
    with pytest.raises(ValueError, match=r"^position=Relative\(.*\) in the call of Attention"):
        layer.apply({}, X, X, position=Relative())
    with pytest.raises(ValueError, match=r"^deterministic=False: the scores of MultiHeadAttention are those before dropout"):
        keras.MultiHeadAttention(N, H).apply({}, X, X, deterministic=np.False_, method="attention_scores")
    layer, variables = initialised(keras.MultiHeadAttention, {"num_heads": N, "key_dim": H, "dropout": 0.5}, (X, X))
    scores = layer.clone(deterministic=False).apply(variables, X, X, method="attention_scores")
    np.testing.assert_array_equal(scores, layer.apply(variables, X, X, method="attention_scores"))
