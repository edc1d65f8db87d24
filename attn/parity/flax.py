"""Converts between `flax.linen.MultiHeadDotProductAttention` (0.12) and `attn.layers.keras.MultiHeadAttention`.

The arrays are the same, `[D, N, H]`, `[N, H]` and `[N, H, O]`; only the output projection has another name: "out" in Flax,
"attention_output" in our layer. Modules of `flax.nnx` cannot be converted.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from attn.layers.keras import MultiHeadAttention
from attn.parity.trees import Arrays, check_shapes, parameters, unflatten, width

_MODULES = (nn.MultiHeadDotProductAttention, nn.MultiHeadAttention, nn.SelfAttention)
_SUPPORTED = {  # the fields that change what is computed, and the only value of each that our layer computes
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
    """Converts a Flax attention module and its parameters to our layer and its parameters.

    The layer computes what the module computes, with these differences:

    - The layer is called as (query, value, key), the module as (query, key, value).
    - Flax's `mask` `[*B, N, T, S]` is the layer's `attention_mask`.
    - For a query that may attend to no key, Flax gives the mean of the values; our weights are 0.
    - `dropout_rate` is kept, and each weight is dropped independently, as with Flax's `broadcast_dropout=False`.
    - `deterministic` is kept where it is a field; where it is not, the layer's call is deterministic by default.
    - Scores are computed in at least float32, whatever `precision` and `force_fp32_for_softmax` are.

    Args:
      module: bound or unbound; it has the number of heads, which the parameters need not show.
      params: `{"params": ...}` or the tree inside it, from Flax or from `load_weights`.

    Returns:
      The layer and its `{"params": ...}`, which are NumPy arrays, copied.

    Raises:
      ValueError: one line, for `normalize_qk`, `decode`, a `dtype` other than that of the parameters, a custom attention
        function or product, another class, and names or shapes that are not those of the module.
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
        deterministic=module.deterministic,
        attention_axes=-2,  # for inputs of any rank; the layer's default is all axes between the first and the last
    )
    return layer, {"params": unflatten({_renamed(name, "out", "attention_output"): x for name, x in arrays.items()})}


def to_flax(params: Any, module: nn.MultiHeadDotProductAttention) -> dict[str, Any]:
    """Converts parameters of our layer to those of a Flax module.

    Args:
      params: the layer's `{"params": ...}` or the tree inside it.
      module: the Flax module that they are for.

    Returns:
      The module's `{"params": ...}`.

    Raises:
      ValueError: one line with the parameter and both shapes; and what `from_flax` raises for the module.
    """
    arrays = {_renamed(name, "attention_output", "out"): x for name, x in parameters(params).items()}
    _check(module, arrays)
    return {"params": unflatten(arrays)}


def _check(module: nn.MultiHeadDotProductAttention, arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Checks the module and the arrays. Returns the shapes of the module's parameters, for inputs as wide as the kernels."""
    if type(module) not in _MODULES:  # a subclass may compute anything
        raise ValueError(f"module is a {type(module).__name__}, not a flax.linen.MultiHeadDotProductAttention")
    for field, supported in _SUPPORTED.items():
        if getattr(module, field) != supported:
            raise ValueError(f"{field}={getattr(module, field)!r} is not supported: only {supported!r} can be converted")
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
            raise ValueError(
                f"dtype={np.dtype(module.dtype)} is not supported: {name} is {array.dtype}, and the two must be equal"
            )
    return shapes


def _renamed(name: str, old: str, new: str) -> str:
    layer, _, part = name.partition("/")
    return f"{new if layer == old else layer}/{part}"
