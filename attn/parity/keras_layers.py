"""The weights of single Keras layers, read and written under our names. Keras itself is never imported."""

from typing import Any

import numpy as np

from attn.parity.trees import Arrays, check_like

LAYERS = ("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention")  # those with a counterpart here


def kind_of(layer: Any) -> str:
    """Its class' name, in Keras 3.15's spelling where that changed. A class of someone else's may compute anything."""
    module, name = type(layer).__module__, type(layer).__name__
    if module.partition(".")[0] not in ("keras", "tf_keras"):
        return f"{module}.{name}"
    return {"GroupedQueryAttention": "GroupQueryAttention"}.get(name, name)


def name_of(layer: Any) -> str:
    return f"Keras layer {getattr(layer, 'name', layer)!r}"


def no_partner(layer: Any) -> ValueError:
    partners = ", ".join(LAYERS)
    return ValueError(f"{name_of(layer)} is a {kind_of(layer)}: there is a partner for {partners} and for models of them")


def refuse(layer: Any, **allowed: Any) -> None:
    """Raises where the layer's config has another value in one of these fields; a field it lacks is as it should be."""
    config = layer.get_config()
    for field, value in allowed.items():
        if field in config and config[field] not in (value, None):
            raise ValueError(f"{name_of(layer)} has {field}={config[field]!r}: only {value!r} has a partner here")


def arrays_of(layer: Any) -> Arrays:
    """Its weights under our names."""
    names = weight_names(layer)  # which refuses what is no layer
    weights = layer.get_weights()
    if len(names) != len(weights):
        raise ValueError(f"{name_of(layer)} has {len(weights)} weights where {len(names)} belong: is it built? Call it once")
    return {name: np.array(weight) for name, weight in zip(names, weights, strict=True)}


def weight_names(layer: Any) -> list[str]:
    """Our names of its weights, in Keras' order of them."""
    config, kind = getattr(layer, "get_config", dict)(), kind_of(layer)
    if kind in ("MultiHeadAttention", "GroupQueryAttention"):
        parts = ("kernel", "bias") if config["use_bias"] else ("kernel",)
        return [f"{name}/{part}" for name in ("query", "key", "value", "attention_output") for part in parts]
    if kind == "Dense":
        return ["kernel", "bias"] if config["use_bias"] else ["kernel"]
    if kind in ("Embedding", "LayerNormalization"):
        return {"Embedding": ["embedding"], "LayerNormalization": ["scale", "bias"]}[kind]
    if kind not in ("Attention", "AdditiveAttention"):
        raise no_partner(layer)
    names = ["scale"] if config["use_scale"] else []
    return [*names, "concat_score_weight"] if config.get("score_mode") == "concat" else names


def read(layers: dict[str, Any]) -> Arrays:
    """The arrays of the layers, each at its prefix."""
    return {prefix + name: array for prefix, layer in layers.items() for name, array in arrays_of(layer).items()}


def write(arrays: Arrays, layers: dict[str, Any], owner: str) -> None:
    """Arrays into the layers, each at its prefix, once all of them fit."""
    check_like(arrays, read(layers), owner)
    for prefix, layer in layers.items():
        layer.set_weights([arrays[prefix + name] for name in weight_names(layer)])
