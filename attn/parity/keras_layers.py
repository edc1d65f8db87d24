"""Reads and writes the weights of single Keras layers under the names of our parameters. Keras is not imported."""

from typing import Any

import numpy as np

from attn.parity.trees import Arrays, check_like

LAYERS = ("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention")  # those that can be converted


def kind_of(layer: Any) -> str:
    """The name of the layer's class, as Keras 3.15 spells it; with the module in front where the class is not Keras' own."""
    module, name = type(layer).__module__, type(layer).__name__
    if module.partition(".")[0] not in ("keras", "tf_keras"):
        return f"{module}.{name}"
    return {"GroupedQueryAttention": "GroupQueryAttention"}.get(name, name)


def name_of(layer: Any) -> str:
    return f"Keras layer {getattr(layer, 'name', layer)!r}"


def unsupported(layer: Any) -> ValueError:
    """The error for a layer of another class."""
    supported = ", ".join(LAYERS)
    return ValueError(f"{name_of(layer)} is a {kind_of(layer)}: only {supported} and models of them can be converted")


def require(layer: Any, **required: Any) -> None:
    """Raises ValueError where a field of the layer's config has neither the required value nor None. A field may be absent."""
    config = layer.get_config()
    for field, value in required.items():
        if field in config and config[field] not in (value, None):
            raise ValueError(f"{name_of(layer)} has {field}={config[field]!r}: only {value!r} can be converted")


def check_plain(layer: Any) -> None:
    """Raises ValueError, with the true reason, where a layer or one inside of it has LoRA's weights or is quantized."""
    inner = getattr(layer, "_flatten_layers", list)()
    for part in (layer, *inner):
        name = name_of(layer) + ("" if part is layer else f" has {part.name!r}, which")
        if getattr(part, "lora_enabled", False):
            raise ValueError(f"{name} has LoRA enabled: copy its merged kernel into a layer without LoRA first")
        if (mode := getattr(part, "quantization_mode", None)) is not None:
            raise ValueError(f"{name} is quantized ({mode}): only weights in floating point can be converted")


def arrays_of(layer: Any) -> Arrays:
    """The layer's weights by the names of our parameters. Raises ValueError where it is not built."""
    names = weight_names(layer)  # raises for an object that is not a supported layer
    check_plain(layer)
    weights = layer.get_weights()
    if len(names) != len(weights):
        raise ValueError(f"{name_of(layer)} has {len(weights)} weights instead of {len(names)}: call it once to build it")
    return {name: np.array(weight) for name, weight in zip(names, weights, strict=True)}


def weight_names(layer: Any) -> list[str]:
    """The names of our parameters for the layer's weights, in Keras' order."""
    config, kind = getattr(layer, "get_config", dict)(), kind_of(layer)
    if kind in ("MultiHeadAttention", "GroupQueryAttention"):
        parts = ("kernel", "bias") if config["use_bias"] else ("kernel",)
        return [f"{name}/{part}" for name in ("query", "key", "value", "attention_output") for part in parts]
    if kind == "Dense":
        return ["kernel", "bias"] if config["use_bias"] else ["kernel"]
    if kind in ("Embedding", "LayerNormalization"):
        return {"Embedding": ["embedding"], "LayerNormalization": ["scale", "bias"]}[kind]
    if kind not in ("Attention", "AdditiveAttention"):
        raise unsupported(layer)
    names = ["scale"] if config["use_scale"] else []
    return [*names, "concat_score_weight"] if config.get("score_mode") == "concat" else names


def read(layers: dict[str, Any]) -> Arrays:
    """The arrays of several layers, each under the layer's prefix."""
    return {prefix + name: array for prefix, layer in layers.items() for name, array in arrays_of(layer).items()}


def write(arrays: Arrays, layers: dict[str, Any], owner: str) -> None:
    """Writes arrays into several layers, each under the layer's prefix, after checking all of them."""
    check_like(arrays, read(layers), owner)
    for prefix, layer in layers.items():
        layer.set_weights([arrays[prefix + name] for name in weight_names(layer)])
