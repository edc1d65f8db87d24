"""The rows and columns of the matrix: what is transformed, and by which transformation. The test and the page use this list."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import attn
from attn.layers import d2l, d2l_transformer, keras
from attn.models.classifier import Classifier, ClassifierConfig

B, T, S, N, K, H, V, D = 2, 4, 6, 4, 2, 5, 3, 6
COLUMNS = {
    "jit": "as one compiled program; all columns are compared with it",
    "eager": "operation by operation",
    "vmap": "over one more axis of all arrays; of `attend`, also over masks, lengths and random keys alone",
    "nested vmap": "over two more axes",
    "grad": "reverse mode, by the parameters and the arrays of floating point",
    "jvp": "forward mode: the same derivative as reverse mode",
    "hvp": "a Hessian-vector product, forward over reverse: the Hessian is symmetric",
    "checkpoint": "`jax.checkpoint` changes no gradient",
    "scan": "three times in a `lax.scan`, values and gradients",
    "shard_map": "over the batch, and over the heads where the arrays have them",
    "sharded": "in a `jit`, arrays sharded over the batch or the heads: no collective, and results that are sharded alike",
    "explicit": "inside of `jax.set_mesh`, arrays sharded over an explicit axis: the batch, the heads or the length",
    "export b": "`jax.export` with a symbolic batch, run at two sizes",
    "export b, t": "the same with a symbolic length too",
    "16 bits": "arrays and parameters in float16 and bfloat16, against float32",
    "float64": "with `jax_enable_x64`",
    "donated": "the first array is donated",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """`run(parameters, *arrays)`; the first axis of each array and of each result is the batch.

    Attributes:
      shapes: of the arrays; an empty one stands for tokens `[B, T]`.
      make: makes the parameters, when they are first needed.
      heads: the axis of heads of the results, if axis 2 of each array is one of heads.
      chained: whether the result can be the first array of the next call.
      not_applicable: columns that do not make sense here.
      refused: columns that raise, and the line that they must say.
    """

    run: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    make: Callable[[], Any] = tuple
    heads: int | None = None
    chained: bool = False
    not_applicable: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @functools.cached_property
    def parameters(self) -> Any:
        return self.make()

    def arrays(self, b: int = B, t: int = T, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)

        def make(shape: tuple[int, ...]) -> np.ndarray:
            if not shape:
                return rng.integers(1, 9, (b, t)).astype(np.int32)
            return rng.normal(size=(b, t if shape[1] == T else shape[1], *shape[2:])).astype(np.float32)

        return [make(shape) for shape in self.shapes]


_QUERY, _KEY, _VALUE = (B, T, N, H), (B, S, K, H), (B, S, K, V)
_TABLE = np.random.default_rng(5).normal(size=(8, N)).astype(np.float32)


def _operator(function: Callable[..., Any], refused: tuple[tuple[str, str], ...] = (), **options: Any) -> Row:
    """With grouped heads, causality, lengths and a learned score_mod at once."""

    def run(table: Any, query: Any, key: Any, value: Any) -> Any:
        mod, lengths = attn.score_mods.t5_relative_bias(table), jnp.full(query.shape[:-3], 3)
        return function(query, key, value, score_mod=mod, causal="top_left", key_lengths=lengths, **options)

    return Row(run, (_QUERY, _KEY, _VALUE), lambda: _TABLE, heads=2, refused=refused)


def _merged(_: Any, query: Any, key: Any, value: Any) -> Any:
    parts = [attn.attend_with_lse(query, key, value, key_lengths=jnp.full(query.shape[:-3], 2))]
    parts += [attn.attend_with_lse(query, key, value, mask_mod=lambda batch, head, query, key: key >= 2)]
    return attn.merge_attention(*zip(*parts, strict=True))


def _statistics(table: Any, query: Any, key: Any, value: Any) -> Any:
    found = attn.attention_statistics(query, key, value, score_mod=attn.score_mods.t5_relative_bias(table), causal="top_left")
    return jnp.swapaxes(found.lse, -1, -2), jnp.swapaxes(found.entropy, -1, -2), jnp.swapaxes(found.received, -1, -2)


def _weights(table: Any, query: Any, key: Any, value: Any) -> Any:
    mod = attn.score_mods.t5_relative_bias(table)
    return jnp.moveaxis(attn.attention_weights(query, key, value, score_mod=mod, causal="top_left"), -3, -2)


def _pooled(function: Callable[..., Any], table: Any, query: Any, key: Any, value: Any) -> Any:
    return function(query, key, value, score_mod=attn.score_mods.t5_relative_bias(table))


def _layer(module: Any, *shapes: tuple[int, ...], **row: Any) -> Row:
    def variables() -> Any:
        inputs = Row(module.apply, shapes).arrays()
        return jax.tree.map(np.asarray, jax.jit(module.init)(jax.random.key(0), *inputs))

    return Row(module.apply, shapes, variables, **row)


@functools.cache
def rows() -> dict[str, Row]:
    x, y = (B, T, D), (B, S, D)
    config = ClassifierConfig(
        body="multi_head", vocabulary_size=9, max_length=T, num_classes=3, embed_dim=D, num_layers=1, num_heads=2, key_dim=4,
        output_dims=(D,), feedforward_dim=7, positions="rotary", dropout_rate=0.0, mask_padding=True,
    )  # fmt: skip
    tokens: dict[str, Any] = {"not_applicable": ("scan", "16 bits")}
    chain: dict[str, Any] = {"chained": True}
    return {
        "attend": _operator(attn.attend),
        "attend, dense": _operator(attn.attend, implementation="dense"),
        "attend, chunked in tiles": _operator(
            attn.attend,
            (("export b, t", "block=(2, 3) needs lengths that are known: these are t and 6"),),
            implementation="chunked",
            block=(2, 3),
        ),
        "attend, chunked_autodiff": _operator(attn.attend, implementation="chunked_autodiff"),
        "attend, entmax15": _operator(attn.attend, normalizer="entmax15"),
        "attend, sigmoid": _operator(attn.attend, normalizer="sigmoid"),
        "attend, additive": _operator(attn.attend, score="additive"),
        "attend_pooled": Row(
            functools.partial(_pooled, attn.attend_pooled),
            (_QUERY, _KEY, _VALUE),
            lambda: _TABLE,
            heads=1,
        ),
        "attend_with_lse, merge_attention": Row(_merged, (_QUERY, _KEY, _VALUE), heads=2),
        "attention_weights": Row(_weights, (_QUERY, _KEY, _VALUE), lambda: _TABLE, heads=2),
        "attention_statistics": Row(_statistics, (_QUERY, _KEY, _VALUE), lambda: _TABLE, heads=2),
        "positions.rotary": Row(lambda _, x: attn.positions.rotary(x), ((B, T, N, 4),), heads=2, chained=True),
        "keras.Attention": _layer(keras.Attention(use_scale=True), x, y, **chain),
        "keras.AdditiveAttention": _layer(keras.AdditiveAttention(), x, y, **chain),
        "keras.MultiHeadAttention": _layer(keras.MultiHeadAttention(2, H), x, y, **chain),
        "keras.GroupQueryAttention": _layer(keras.GroupQueryAttention(H, 4, 2), x, y, **chain),
        "keras.TransformerBlock": _layer(keras.TransformerBlock(2, H, 7), x, **chain),
        "d2l.DotProductAttention": _layer(d2l.DotProductAttention(0.0), x, y, y, **chain),
        "d2l.AdditiveAttention": _layer(d2l.AdditiveAttention(7, 0.0), x, y, y, **chain),
        "d2l.MultiHeadAttention": _layer(d2l.MultiHeadAttention(D, 2, 0.0), x, y, y, **chain),
        "d2l.TransformerEncoderBlock": _layer(d2l_transformer.TransformerEncoderBlock(D, 7, 2, 0.0), x, **chain),
        "d2l.TransformerEncoder": _layer(d2l_transformer.TransformerEncoder(9, D, 7, 2, 1, 0.0), (), **tokens),
        "Classifier": _layer(Classifier(config), (), **tokens),
    }
