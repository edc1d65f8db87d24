"""PyTorch's modules and state_dicts: which weights are read, and why those of an adapted module are not."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_WRAPPERS = {  # classes that compute what the module inside of them computes, and where that is
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
}
_ADAPTERS = (  # what a name in the state_dict tells, and how to get plain weights
    (r"(^|\.)lora_|(^|\.)base_layer\.", "has an adapter (LoRA)", "merge it into the weights first"),
    (r"(^|\.)parametrizations\.", "is parametrized", "call torch.nn.utils.parametrize.remove_parametrizations first"),
    (r"_packed_params|(^|\.)(scale|zero_point)$", "is quantized", "convert the module from before it was quantized"),
    (r"_mask$", "is pruned", "call torch.nn.utils.prune.remove first"),
    (r"_orig$", "has spectral norm", "call torch.nn.utils.remove_spectral_norm first"),
    (r"weight_[gv]$", "has weight norm", "call torch.nn.utils.remove_weight_norm first"),
)


def class_of(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def unwrapped(module: Any) -> Any:
    """The module inside of `torch.compile` and of the data-parallel wrappers."""
    while (inside := _WRAPPERS.get(class_of(module))) is not None:
        module = getattr(module, inside)
    return module


def check_plain(names: Iterable[str]) -> None:
    """Raises ValueError, with the reason and what to do, where the names of a state_dict are those of an adapted module."""
    names = list(names)
    for pattern, reason, remedy in _ADAPTERS:
        for name in names:
            if re.search(pattern, name):
                raise ValueError(f"the module {reason} ({name}): {remedy}")


def select(weights: Mapping[str, Any], prefix: str, wanted: Iterable[str]) -> dict[str, Any]:
    """The weights of one module out of a state_dict, without the prefix of their names.

    Args:
      weights: the state_dict; names that do not begin with the prefix are left out.
      prefix: such as "encoder.layers.0.self_attn", with or without the last dot; "" takes all.
      wanted: names that such a module has, by which the error finds the prefix.

    Raises:
      ValueError: the prefix is missing or is not that of a wanted name, where there is such a name; and as `check_plain`.
    """
    stem = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    chosen = {name[len(stem) :]: x for name, x in weights.items() if isinstance(name, str) and name.startswith(stem)}
    check_plain(chosen)
    wanted = list(wanted)
    found = [name[: -len(last)] for name in weights for last in wanted if isinstance(name, str) and name.endswith(f".{last}")]
    if any(name in chosen for name in wanted) or not found:
        if prefix and not chosen:
            raise ValueError(f"prefix={prefix!r} begins no name of the state_dict")
        return chosen if prefix else dict(weights)
    nearest = next((name for name in found if name.startswith(prefix)), found[0])
    if prefix:
        raise ValueError(f"prefix={prefix!r} is not that of the names of such a module; did you mean {nearest!r}?")
    more = len(set(found)) - 1
    raise ValueError(
        f"names in the state_dict begin with {nearest!r}{f' ({more} more modules are there)' * bool(more)}: pass it as prefix"
    )
