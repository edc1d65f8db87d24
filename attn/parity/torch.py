"""Weights of `torch.nn.MultiheadAttention` (PyTorch 2) to and from `attn.layers.keras.MultiHeadAttention`, bit for bit.

With E = N · H: PyTorch's matrices are `[out, in]`, its heads are contiguous rows, and `in_proj_weight` `[3E, E]` has the rows
of query, key and value, in that order. With kdim or vdim they are q_proj_weight `[E, E]`, k_proj_weight `[E, kdim]` and
v_proj_weight `[E, vdim]`; the biases stay together as `in_proj_bias` `[3E]`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from attn.layers.keras import MultiHeadAttention
from attn.parity.trees import Arrays, check_like, check_shapes, flatten, parameters, unflatten, width

_MODULE = "torch.nn.MultiheadAttention"
_PROJECTIONS = ("query", "key", "value")
_SEPARATE: tuple[str, ...] = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def from_torch(module: Any, *, num_heads: int | None = None) -> tuple[MultiHeadAttention, dict[str, Any]]:
    """The layer and the `{"params": ...}` that compute what a `torch.nn.MultiheadAttention` computes.

    The arrays are NumPy's, copies, in the module's dtype. The layer is called (query, value, key), PyTorch's module
    (query, key, value). The layer's inputs are `[B, T, D]`: `batch_first` is no matter of the weights, so without it swap
    the first two axes. True is masked in PyTorch's bool masks: give `attention_mask=~attn_mask` and
    `value_mask=~key_padding_mask`. `is_causal` is `use_causal_mask`. A query with no key gives NaN there and weights of 0 here.

    Args:
      module: the module itself, or its `state_dict()` by name, of arrays of PyTorch, NumPy or JAX (so `load_weights` of a
        file does, without PyTorch). A state_dict knows of no dropout, which is 0 then, nor of `add_zero_attn`.
      num_heads: needed with a state_dict, which does not tell.

    Raises:
      ValueError: one line, for `add_bias_kv`, `add_zero_attn`, another class, and names or shapes that are not the module's.
    """
    weights, num_heads, dropout = _read(module, num_heads)
    for name in ("bias_k", "bias_v"):
        if name in weights:
            raise ValueError(f"add_bias_kv=True ({name}) has no place in attn.layers.keras.MultiHeadAttention")
    arrays = parameters(weights)
    head_dim, embed_dim = _check_weights(arrays, num_heads)
    layer = MultiHeadAttention(
        num_heads=num_heads,
        key_dim=head_dim,
        value_dim=head_dim,
        output_shape=embed_dim,
        use_bias="in_proj_bias" in arrays,
        dropout=dropout,
    )
    return layer, {"params": _from_rows(arrays, num_heads)}


def to_torch(params: Any, module: Any) -> Any:
    """Copies parameters of our layer into a `torch.nn.MultiheadAttention`, in place, and returns the module.

    `params` is `{"params": ...}` or the tree inside it. Everything is checked before anything is written.

    Raises:
      ValueError: one line with the parameter and both shapes or dtypes, or as `from_torch` about the module.
    """
    arrays = parameters(params)
    _, variables = from_torch(module)
    check_like(arrays, flatten(variables["params"]), "the module")
    targets = dict(module.named_parameters())
    for name, array in _to_rows(arrays, packed="in_proj_weight" in targets).items():
        exact = array if array.dtype.kind == "f" else array.astype(np.float32)  # bfloat16, which PyTorch takes from no array
        targets[name].detach().copy_(targets[name].new_tensor(exact))
    return module


def _read(module: Any, num_heads: int | None) -> tuple[Mapping[str, Any], int, float]:
    """The state_dict of a module or of itself, the number of heads and the dropout."""
    if isinstance(module, Mapping):
        if num_heads is None:
            raise ValueError("num_heads=None: the weights alone do not tell it")
        return module, num_heads, 0.0
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    if name != "torch.nn.modules.activation.MultiheadAttention":  # a subclass may compute anything
        raise ValueError(f"module is a {name}, not a {_MODULE} or its state_dict")
    if module.add_zero_attn:
        raise ValueError("add_zero_attn=True has no place in attn.layers.keras.MultiHeadAttention")
    if num_heads not in (None, module.num_heads):
        raise ValueError(f"num_heads={num_heads}, and the module has {module.num_heads}")
    return module.state_dict(), module.num_heads, module.dropout


def _check_weights(arrays: Arrays, num_heads: int) -> tuple[int, int]:
    """H and E."""
    E = next(iter(width(arrays, "out_proj.weight", 0)), 0)
    if num_heads < 1 or E % num_heads:
        raise ValueError(f"embed_dim={E} is not divisible by num_heads={num_heads}")
    shapes: dict[str, tuple[int, ...]] = {"out_proj.weight": (E, E)}
    if any(name in arrays for name in _SEPARATE):
        shapes["q_proj_weight"] = (E, E)
        shapes |= {name: (E, *width(arrays, name, 1)) for name in _SEPARATE[1:]}
    else:
        shapes["in_proj_weight"] = (3 * E, E)
    if any(name in arrays for name in ("in_proj_bias", "out_proj.bias")):
        shapes |= {"in_proj_bias": (3 * E,), "out_proj.bias": (E,)}
    check_shapes(arrays, shapes, _MODULE)
    return E // num_heads, E


def _from_rows(arrays: Arrays, num_heads: int) -> dict[str, Any]:
    packed = "in_proj_weight" in arrays
    rows = np.split(arrays["in_proj_weight"], 3) if packed else [arrays[name] for name in _SEPARATE]
    flat = {f"{name}/kernel": _by_head(x.T, num_heads) for name, x in zip(_PROJECTIONS, rows, strict=True)}
    out = arrays["out_proj.weight"].T
    flat["attention_output/kernel"] = out.reshape(num_heads, -1, out.shape[1])
    if "in_proj_bias" in arrays:
        biases = np.split(arrays["in_proj_bias"], 3)
        flat |= {f"{name}/bias": _by_head(x, num_heads) for name, x in zip(_PROJECTIONS, biases, strict=True)}
        flat["attention_output/bias"] = arrays["out_proj.bias"]
    return unflatten(flat)


def _to_rows(arrays: Arrays, packed: bool) -> Arrays:
    rows = [arrays[f"{name}/kernel"].reshape(len(arrays[f"{name}/kernel"]), -1).T for name in _PROJECTIONS]
    weights: Arrays = {"in_proj_weight": np.concatenate(rows)} if packed else dict(zip(_SEPARATE, rows, strict=True))
    out = arrays["attention_output/kernel"]
    weights["out_proj.weight"] = out.reshape(-1, out.shape[-1]).T
    if "attention_output/bias" in arrays:
        weights["in_proj_bias"] = np.concatenate([arrays[f"{name}/bias"].reshape(-1) for name in _PROJECTIONS])
        weights["out_proj.bias"] = arrays["attention_output/bias"]
    return weights


def _by_head(x: np.ndarray, num_heads: int) -> np.ndarray:
    """`[..., E]` as `[..., N, H]`."""
    return np.ascontiguousarray(x).reshape(*x.shape[:-1], num_heads, -1)
