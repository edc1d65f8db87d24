"""Every layer and model, with sizes that are pairwise different."""

import jax
import numpy as np

from attn.layers import d2l, d2l_transformer, keras
from attn.models.classifier import Classifier, ClassifierConfig

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


def initialised(cls, fields, inputs):
    """A layer, and variables that are all different."""
    layer = cls(**fields)
    leaves, tree = jax.tree.flatten(jax.eval_shape(layer.init, RNGS, *inputs))
    rng = np.random.default_rng(1)
    return layer, jax.tree.unflatten(tree, [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])
