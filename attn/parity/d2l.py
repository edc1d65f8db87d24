"""Converts the weights of d2l's attention layers ("Dive into Deep Learning", chapter 11, d2l 1.0) to `attn.layers.d2l`.

The weights come in one of two forms. In PyTorch's they are named W_q.weight, …, and their shape is `[out, in]`; in Flax's they
are named W_q/kernel, …, and their shape is `[in, out]`. Our layers have Flax's form.
"""

from collections.abc import Mapping
from typing import Any

from attn.layers import d2l
from attn.parity.state_dict import check_plain, select, unwrapped
from attn.parity.trees import Arrays, check_shapes, parameters, unflatten, width

_MULTI_HEAD = ("W_q", "W_k", "W_v", "W_o")
_ADDITIVE = ("W_q", "W_k", "w_v")
_KINDS = {"MultiHeadAttention": _MULTI_HEAD, "AdditiveAttention": _ADDITIVE, "DotProductAttention": ()}


def from_d2l(
    module: Any, *, num_heads: int | None = None, prefix: str = ""
) -> tuple[d2l.MultiHeadAttention | d2l.AdditiveAttention | d2l.DotProductAttention, dict[str, Any]]:
    """Converts an attention layer of d2l, or its weights, to our layer of the same name and its parameters.

    The outputs agree except where a valid length is 0: d2l's weights are uniform there, and our layers give 0.

    Args:
      module: d2l's MultiHeadAttention, AdditiveAttention or DotProductAttention in PyTorch, recognised by the name of its
        class. Or the weights of one: its `state_dict()`, or Flax's `{"params": ...}` or the tree inside it. The arrays may be
        of NumPy, JAX or PyTorch, so the result of `load_weights` will do. Weights do not contain the dropout rate, which is
        then set to 0.
      num_heads: the number of heads; must be given with the weights of a MultiHeadAttention, which do not contain it.
      prefix: of the names in the state_dict of a larger model, such as "blks.0.attention".

    Returns:
      The layer of `attn.layers.d2l` and its `{"params": ...}`: NumPy arrays, copied, in their own dtype.

    Raises:
      ValueError: one line, for a module of another class, for names or shapes that are not those of d2l's layers, and as
        `from_torch` for weights without values and adapted modules.
    """
    dropout = 0.0
    if prefix and not isinstance(module, Mapping):
        raise ValueError(f"prefix={prefix!r} is for a state_dict: pass the attention module itself")
    module = unwrapped(module)
    if isinstance(module, Mapping):
        dotted = prefix or not any(isinstance(x, Mapping) for x in module.values())
        arrays = _flax_form(parameters(select(module, prefix, ("W_q.weight",)) if dotted else module))
        kind = _kind_of(arrays)
    else:
        if hasattr(module, "state_dict"):
            check_plain(module.state_dict())
        kind, dropout = _class_and_dropout(module)
        arrays = _flax_form(parameters(module.state_dict()))
        heads = getattr(module, "num_heads", None)
        if num_heads not in (None, heads):
            raise ValueError(f"num_heads={num_heads}, but the module has {heads}")
        num_heads = heads
    if (num_heads is None) == (kind == "MultiHeadAttention"):
        raise ValueError(
            f"num_heads={num_heads} with weights of {kind}: it must be given for MultiHeadAttention, and only for it"
        )
    _check_weights(arrays, kind)
    params = {"params": unflatten(arrays)}
    if kind == "DotProductAttention":
        return d2l.DotProductAttention(dropout), params
    num_hiddens = arrays["W_q/kernel"].shape[1]
    if kind == "AdditiveAttention":
        return d2l.AdditiveAttention(num_hiddens, dropout), params
    assert num_heads is not None
    return d2l.MultiHeadAttention(num_hiddens, num_heads, dropout, bias="W_q/bias" in arrays), params


def _class_and_dropout(module: Any) -> tuple[str, float]:
    """The name of the class of d2l's PyTorch module, and its dropout rate."""
    kind = type(module).__name__
    if kind not in _KINDS or not hasattr(module, "state_dict"):
        raise ValueError(f"module is a {kind}: it must be d2l's {', '.join(_KINDS)} in PyTorch, or the weights of one")
    scorer = module.attention if kind == "MultiHeadAttention" else module
    if kind == "MultiHeadAttention" and type(scorer).__name__ != "DotProductAttention":
        raise ValueError(f"attention is a {type(scorer).__name__}: in d2l's MultiHeadAttention it is a DotProductAttention")
    return kind, scorer.dropout.p


def _kind_of(arrays: Arrays) -> str:
    names = {name.partition("/")[0] for name in arrays}
    if not names:
        return "DotProductAttention"
    return "AdditiveAttention" if "w_v" in names else "MultiHeadAttention"


def _flax_form(arrays: Arrays) -> Arrays:
    """Renames and transposes PyTorch's W_q.weight `[out, in]` to W_q/kernel `[in, out]`; Flax's names stay as they are."""
    converted: Arrays = {}
    for name, array in arrays.items():
        layer, dot, part = name.rpartition(".")
        converted[f"{layer}/{'kernel' if part == 'weight' else part}" if dot else name] = array.T if dot else array
    return converted


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
