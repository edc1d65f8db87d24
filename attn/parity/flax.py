"""Weights of `flax.linen.MultiHeadDotProductAttention` (0.12) to and from `attn.layers.keras.MultiHeadAttention`.

The arrays are the same, `[D, N, H]`, `[N, H]` and `[N, H, O]`: Flax calls the last projection "out". linen alone, no nnx.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from attn.layers.keras import MultiHeadAttention
from attn.parity.trees import Arrays, check_shapes, parameters, unflatten, width

_MODULES = (nn.MultiHeadDotProductAttention, nn.MultiHeadAttention, nn.SelfAttention)
_PLAIN = {  # the fields that change what is computed, and the one value of each that ours computes
    "normalize_qk": False,
    "decode": False,
    "attention_fn": nn.dot_product_attention,
    "qkv_dot_general": None,
    "out_dot_general": None,
    "qkv_dot_general_cls": None,
    "out_dot_general_cls": None,
    "qk_attn_weights_einsum_cls": None,
    "attn_weights_value_einsum_cls": None,
}


def from_flax(module: nn.MultiHeadDotProductAttention, params: Any) -> tuple[MultiHeadAttention, dict[str, Any]]:
    """The layer and the `{"params": ...}` that compute what Flax's module computes with `params`.

    The layer is called (query, value, key), Flax's module (query, key, value). Flax's mask `[*B, N, T, S]` is
    `attention_mask`. A query with no key gives Flax the mean of the values, and weights of 0 here. `dropout_rate` is carried
    over; each weight is dropped on its own, which Flax calls `broadcast_dropout=False`. `deterministic` is of the call, and
    scores are at least float32, whatever `precision` and `force_fp32_for_softmax` say.

    Args:
      module: bound or not; it tells the number of heads.
      params: `{"params": ...}` or the tree inside it, from Flax or from `load_weights`. The result has copies, NumPy's.

    Raises:
      ValueError: one line, for `normalize_qk`, `decode`, a `dtype` other than the parameters', attention or products of the
        user's own, another class, and names or shapes that are not the module's.
    """
    arrays = parameters(nn.meta.unbox(params))
    shapes = _check(module, arrays)
    _, head_dim = shapes["query/kernel"][-2:]
    layer = MultiHeadAttention(
        num_heads=module.num_heads,
        key_dim=head_dim,
        value_dim=head_dim,
        output_shape=shapes["out/kernel"][-1],
        use_bias=module.use_bias,
        dropout=module.dropout_rate,
        attention_axes=-2,  # of inputs of any rank, where Keras' default is all between the first and the last
    )
    return layer, {"params": unflatten({_renamed(name, "out", "attention_output"): x for name, x in arrays.items()})}


def to_flax(params: Any, module: nn.MultiHeadDotProductAttention) -> dict[str, Any]:
    """Flax's `{"params": ...}` for `module` of parameters of our layer (`{"params": ...}` or the tree inside it).

    Raises:
      ValueError: one line with the parameter and both shapes, or as `from_flax` about the module.
    """
    arrays = {_renamed(name, "attention_output", "out"): x for name, x in parameters(params).items()}
    _check(module, arrays)
    return {"params": unflatten(arrays)}


def _check(module: nn.MultiHeadDotProductAttention, arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """The shapes that the module has for inputs as wide as the kernels say."""
    if type(module) not in _MODULES:  # a subclass may compute anything
        raise ValueError(f"module is a {type(module).__name__}, not a flax.linen.MultiHeadDotProductAttention")
    for field, plain in _PLAIN.items():
        if getattr(module, field) != plain:
            raise ValueError(f"{field}={getattr(module, field)!r} is not carried over: only {plain!r} is")
    N = module.num_heads
    D = next(iter(width(arrays, "query/kernel", 0)), 0)
    qkv_features, out_features = module.qkv_features or D, module.out_features or D
    if N < 1 or qkv_features % N:
        raise ValueError(f"qkv_features={qkv_features} is not divisible by num_heads={N}")
    H = qkv_features // N
    shapes: dict[str, tuple[int, ...]] = {"out/kernel": (N, H, out_features)}
    shapes |= {f"{name}/kernel": (*width(arrays, f"{name}/kernel", 0), N, H) for name in ("query", "key", "value")}
    if module.use_bias:
        shapes |= {f"{name}/bias": (N, H) for name in ("query", "key", "value")} | {"out/bias": (out_features,)}
    check_shapes(arrays, shapes, "the module")
    for name, array in arrays.items():
        if module.dtype is not None and array.dtype != np.dtype(module.dtype):
            raise ValueError(f"dtype={np.dtype(module.dtype)} is not carried over to {name} of {array.dtype}: only None is")
    return shapes


def _renamed(name: str, old: str, new: str) -> str:
    layer, _, part = name.partition("/")
    return f"{new if layer == old else layer}/{part}"
