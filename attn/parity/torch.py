"""Converts between `torch.nn.MultiheadAttention` (PyTorch 2) and `attn.layers.keras.MultiHeadAttention`, bit for bit.

Let E = N · H. PyTorch's matrices are `[out, in]`, and the output channels of a head are contiguous rows. `in_proj_weight`
`[3E, E]` is packed: it has the rows of the query, key and value projections, in that order. A module with `kdim` or `vdim` has
q_proj_weight `[E, E]`, k_proj_weight `[E, kdim]` and v_proj_weight `[E, vdim]` instead. The biases are always packed, as
`in_proj_bias` `[3E]`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from attn.layers.keras import MultiHeadAttention
from attn.parity.state_dict import check_plain, class_of, select, unwrapped
from attn.parity.trees import Arrays, check_like, check_shapes, flatten, parameters, unflatten, width

_MODULE = "torch.nn.MultiheadAttention"
_CLASS = "torch.nn.modules.activation.MultiheadAttention"
_PROJECTIONS = ("query", "key", "value")
_UNPACKED: tuple[str, ...] = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def from_torch(module: Any, *, num_heads: int | None = None, prefix: str = "") -> tuple[MultiHeadAttention, dict[str, Any]]:
    """Converts a PyTorch attention module, or its `state_dict`, to our layer and its parameters.

    The layer computes what the module computes, with these differences:

    - The layer is called as (query, value, key), the module as (query, key, value).
    - The layer's inputs are `[B, T, D]`. For a module with `batch_first=False`, swap the first two axes of its inputs.
    - True means masked in PyTorch's bool masks: pass `attention_mask=~attn_mask` and `value_mask=~key_padding_mask`.
    - PyTorch's `is_causal` is the layer's `use_causal_mask`.
    - For a query that may attend to no key, PyTorch gives NaN; our weights are 0.

    Args:
      module: the module, or its `state_dict()` with arrays of PyTorch, NumPy or JAX. The result of `load_weights` will do, and
        then PyTorch is not needed. A state_dict contains neither the dropout rate, which is then set to 0, nor
        `add_zero_attn`.
      num_heads: the number of heads; must be given with a state_dict, which does not contain it.
      prefix: of the names in the state_dict of a larger model, such as "encoder.layers.0.self_attn".

    Returns:
      The layer and its `{"params": ...}`: NumPy arrays, copied, in the module's dtype.

    Raises:
      ValueError: one line, for `add_bias_kv`, `add_zero_attn`, another class, names or shapes that are not those of the
        module, weights without values or that NumPy cannot hold, and a module that is pruned, parametrized, quantized or has
        an adapter. A compiled or data-parallel module is that inside of it.

    Example:
      >>> layer, params = attn.parity.from_torch(module)
      >>> output = layer.apply(params, query, value, key)
    """
    weights, num_heads, dropout = _read(module, num_heads, prefix)
    for name in ("bias_k", "bias_v"):
        if name in weights:
            raise ValueError(f"add_bias_kv=True ({name}) is not supported: only False can be converted")
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
    """Copies parameters of our layer into a PyTorch module, in place. Everything is checked before anything is written.

    Args:
      params: the layer's `{"params": ...}` or the tree inside it.
      module: the `torch.nn.MultiheadAttention` that they are for.

    Returns:
      The module.

    Raises:
      ValueError: one line with the parameter and both shapes or dtypes; and what `from_torch` raises for the module.
    """
    arrays = parameters(params)
    _, variables = from_torch(module)
    check_like(arrays, flatten(variables["params"]), "the module")
    targets = dict(unwrapped(module).named_parameters())
    for name, array in _to_rows(arrays, packed="in_proj_weight" in targets).items():
        exact = array if array.dtype.kind == "f" else array.astype(np.float32)  # bfloat16: PyTorch reads no such array
        targets[name].detach().copy_(targets[name].new_tensor(exact))
    return module


def _read(module: Any, num_heads: int | None, prefix: str) -> tuple[Mapping[str, Any], int, float]:
    """The state_dict, the number of heads and the dropout rate; `module` may be the state_dict."""
    if prefix and not isinstance(module, Mapping):
        raise ValueError(f"prefix={prefix!r} is for a state_dict: pass the attention module itself")
    module = unwrapped(module)
    if isinstance(module, Mapping):
        if num_heads is None:
            raise ValueError("num_heads=None: it must be given with a state_dict, which does not contain it")
        return select(module, prefix, ("in_proj_weight", *_UNPACKED)), num_heads, 0.0
    if hasattr(module, "state_dict"):
        check_plain(module.state_dict())
    if class_of(module) != _CLASS:  # a subclass may compute anything
        inside = [name for name, x in getattr(module, "named_modules", dict)() if class_of(x) == _CLASS]
        hint = f"; it has one, module.{inside[0]}" if inside else ""
        raise ValueError(f"module is a {class_of(module)}, not a {_MODULE} or its state_dict{hint}")
    if module.add_zero_attn:
        raise ValueError("add_zero_attn=True is not supported: only False can be converted")
    if num_heads not in (None, module.num_heads):
        raise ValueError(f"num_heads={num_heads}, but the module has {module.num_heads}")
    return module.state_dict(), module.num_heads, module.dropout


def _check_weights(arrays: Arrays, num_heads: int) -> tuple[int, int]:
    """Checks names and shapes. Returns H and E."""
    E = next(iter(width(arrays, "out_proj.weight", 0)), 0)
    if num_heads < 1 or E % num_heads:
        raise ValueError(f"embed_dim={E} is not divisible by num_heads={num_heads}")
    shapes: dict[str, tuple[int, ...]] = {"out_proj.weight": (E, E)}
    if any(name in arrays for name in _UNPACKED):
        shapes["q_proj_weight"] = (E, E)
        shapes |= {name: (E, *width(arrays, name, 1)) for name in _UNPACKED[1:]}
    else:
        shapes["in_proj_weight"] = (3 * E, E)
    if any(name in arrays for name in ("in_proj_bias", "out_proj.bias")):
        shapes |= {"in_proj_bias": (3 * E,), "out_proj.bias": (E,)}
    check_shapes(arrays, shapes, _MODULE)
    return E // num_heads, E


def _from_rows(arrays: Arrays, num_heads: int) -> dict[str, Any]:
    packed = "in_proj_weight" in arrays
    rows = np.split(arrays["in_proj_weight"], 3) if packed else [arrays[name] for name in _UNPACKED]
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
    weights: Arrays = {"in_proj_weight": np.concatenate(rows)} if packed else dict(zip(_UNPACKED, rows, strict=True))
    out = arrays["attention_output/kernel"]
    weights["out_proj.weight"] = out.reshape(-1, out.shape[-1]).T
    if "attention_output/bias" in arrays:
        weights["in_proj_bias"] = np.concatenate([arrays[f"{name}/bias"].reshape(-1) for name in _PROJECTIONS])
        weights["out_proj.bias"] = arrays["attention_output/bias"]
    return weights


def _by_head(x: np.ndarray, num_heads: int) -> np.ndarray:
    """Reshapes `[..., E]` to `[..., N, H]`."""
    return np.ascontiguousarray(x).reshape(*x.shape[:-1], num_heads, -1)
