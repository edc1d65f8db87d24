"""Weights of d2l's attention layers ("Dive into Deep Learning", chapter 11, d2l 1.0) into those of `attn.layers.d2l`.

In PyTorch form they are W_q.weight, … `[out, in]`, in Flax form W_q/kernel, … `[in, out]`, as ours are.
"""

from collections.abc import Mapping
from typing import Any

from attn.layers import d2l
from attn.parity.trees import Arrays, check_shapes, parameters, unflatten, width

_MULTI_HEAD = ("W_q", "W_k", "W_v", "W_o")
_ADDITIVE = ("W_q", "W_k", "w_v")
_KINDS = {"MultiHeadAttention": _MULTI_HEAD, "AdditiveAttention": _ADDITIVE, "DotProductAttention": ()}


def from_d2l(
    module: Any, *, num_heads: int | None = None
) -> tuple[d2l.MultiHeadAttention | d2l.AdditiveAttention | d2l.DotProductAttention, dict[str, Any]]:
    """The layer of `attn.layers.d2l` and the `{"params": ...}` that compute what d2l's layer of the same name computes.

    The arrays are NumPy's, copies, in their dtype. Where a length is 0 d2l has a uniform row, and our layers give 0.

    Args:
      module: d2l's MultiHeadAttention, AdditiveAttention or DotProductAttention in PyTorch, told by the name of its class. Or
        the weights: its `state_dict()`, Flax's `{"params": ...}` or the tree inside it, arrays of any kind (`load_weights` of
        a file does). Weights know of no dropout, which is 0 then.
      num_heads: needed with weights of a MultiHeadAttention, which do not tell.

    Raises:
      ValueError: one line, for another class, and names or shapes that are not d2l's.
    """
    dropout = 0.0
    if isinstance(module, Mapping):
        arrays = _flax_form(parameters(module))
        kind = _kind_of(arrays)
    else:
        kind, dropout = _checked(module)
        arrays = _flax_form(parameters(module.state_dict()))
        heads = getattr(module, "num_heads", None)
        if num_heads not in (None, heads):
            raise ValueError(f"num_heads={num_heads}, and the module has {heads}")
        num_heads = heads
    if (num_heads is None) == (kind == "MultiHeadAttention"):
        raise ValueError(f"num_heads={num_heads} with weights of a {kind}: it is for a MultiHeadAttention, which needs it")
    _check_weights(arrays, kind)
    params = {"params": unflatten(arrays)}
    if kind == "DotProductAttention":
        return d2l.DotProductAttention(dropout), params
    num_hiddens = arrays["W_q/kernel"].shape[1]
    if kind == "AdditiveAttention":
        return d2l.AdditiveAttention(num_hiddens, dropout), params
    assert num_heads is not None
    return d2l.MultiHeadAttention(num_hiddens, num_heads, dropout, bias="W_q/bias" in arrays), params


def _checked(module: Any) -> tuple[str, float]:
    """The kind of d2l's PyTorch module and its dropout."""
    kind = type(module).__name__
    if kind not in _KINDS or not hasattr(module, "state_dict"):
        raise ValueError(f"module is a {kind}, none of d2l's {', '.join(_KINDS)} in PyTorch, nor weights of one")
    scorer = module.attention if kind == "MultiHeadAttention" else module
    if kind == "MultiHeadAttention" and type(scorer).__name__ != "DotProductAttention":
        raise ValueError(f"attention is a {type(scorer).__name__}, and in d2l's MultiHeadAttention a DotProductAttention")
    return kind, scorer.dropout.p


def _kind_of(arrays: Arrays) -> str:
    names = {name.partition("/")[0] for name in arrays}
    if not names:
        return "DotProductAttention"
    return "AdditiveAttention" if "w_v" in names else "MultiHeadAttention"


def _flax_form(arrays: Arrays) -> Arrays:
    """W_q.weight `[out, in]` as W_q/kernel `[in, out]`."""
    form: Arrays = {}
    for name, array in arrays.items():
        layer, dot, part = name.rpartition(".")
        form[f"{layer}/{'kernel' if part == 'weight' else part}" if dot else name] = array.T if dot else array
    return form


def _check_weights(arrays: Arrays, kind: str) -> None:
    layers = _KINDS[kind]
    hiddens = width(arrays, "W_q/kernel", 1)
    shapes = {f"{name}/kernel": (*width(arrays, f"{name}/kernel", 0), *hiddens) for name in layers}
    if kind == "MultiHeadAttention":
        shapes["W_o/kernel"] = (*hiddens, *hiddens)
        if any(name.endswith("/bias") for name in arrays):
            shapes |= {f"{name}/bias": hiddens for name in layers}
    elif kind == "AdditiveAttention":
        shapes["w_v/kernel"] = (*hiddens, 1)
    check_shapes(arrays, shapes, f"d2l's {kind}")
