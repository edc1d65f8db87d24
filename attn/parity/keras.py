"""Weights of Keras' attention layers, in and out. Keras itself is never imported: a layer brings what is asked of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import linen as nn

from attn.layers import keras as ours
from attn.layers.keras.masking import Version, check_version
from attn.parity.trees import Arrays, check_like, parameters, unflatten

MODELS = ("Functional", "Sequential", "Model")


def from_keras(layer: Any, *, version: Version | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A built layer or model of Keras (2.11 to 3.15, any backend) as a linen module and its `{"params": …}`.

    Layers: Attention, AdditiveAttention, MultiHeadAttention, GroupQueryAttention. A model of the blog's four architectures
    becomes an `attn.models.classifier.Classifier` (see `attn.parity.keras_models`).

    Args:
      version: of our layer: None is the contract, "2.11" and "3.15" are Keras' own rows without a key.

    Raises:
      ValueError: one line with the layer and the field, for what has no partner here.
    """
    kind = kind_of(layer)
    check_version(version)
    if kind in MODELS:
        if version is not None:
            raise ValueError(f"version={version!r} is of layers: a model becomes a classifier, which keeps the contract")
        from attn.parity import keras_models

        return keras_models.from_model(layer)
    partner = _LAYERS.get(kind)
    if partner is None:
        raise _no_partner(layer)
    return partner(layer, version), {"params": unflatten(arrays_of(layer))}


def to_keras(params: Any, layer: Any) -> Any:
    """The Keras layer or model, built before, with these params. All of them are checked before one is written.

    Raises:
      ValueError: one line with the name, both shapes or both dtypes.
    """
    arrays = parameters(params)
    if kind_of(layer) in MODELS:
        from attn.parity import keras_models

        return keras_models.to_model(arrays, layer)
    write(arrays, {"": layer}, name_of(layer))
    return layer


def kind_of(layer: Any) -> str:
    """Its class' name, in Keras 3.15's spelling where that changed. A class of someone else's may compute anything."""
    module, name = type(layer).__module__, type(layer).__name__
    if module.partition(".")[0] not in ("keras", "tf_keras"):
        return f"{module}.{name}"
    return {"GroupedQueryAttention": "GroupQueryAttention"}.get(name, name)


def name_of(layer: Any) -> str:
    return f"Keras layer {getattr(layer, 'name', layer)!r}"


def _no_partner(layer: Any) -> ValueError:
    partners = ", ".join(_LAYERS)
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
        raise _no_partner(layer)
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


def _attention(layer: Any, version: Version | None) -> nn.Module:
    config = layer.get_config()
    options = {"use_scale": config["use_scale"], "dropout": config["dropout"], "version": version}
    if kind_of(layer) == "AdditiveAttention":
        return ours.AdditiveAttention(causal=bool(getattr(layer, "causal", False)), **options)
    score_mode = config.get("score_mode", "dot")
    return ours.Attention(score_mode=score_mode, causal=bool(getattr(layer, "causal", False)), **options)


def _multi_head(layer: Any, version: Version | None) -> nn.Module:
    refuse(layer, use_gate=False, sliding_window=None)
    config = layer.get_config()
    axes, shape = config["attention_axes"], config["output_shape"]
    return ours.MultiHeadAttention(
        num_heads=config["num_heads"],
        key_dim=config["key_dim"],
        value_dim=config["value_dim"],
        output_shape=None if not shape else tuple(shape) if isinstance(shape, tuple | list) else shape,
        use_bias=config["use_bias"],
        dropout=config["dropout"],
        attention_axes=axes if axes is None or isinstance(axes, int) else tuple(axes),
        version=version,
    )


def _group_query(layer: Any, version: Version | None) -> nn.Module:
    refuse(layer, use_gate=False, sliding_window=None)
    names = ("head_dim", "num_query_heads", "num_key_value_heads", "dropout", "use_bias")
    return ours.GroupQueryAttention(**{name: getattr(layer, name) for name in names}, version=version)


_LAYERS: dict[str, Callable[[Any, Version | None], nn.Module]] = {
    "Attention": _attention,
    "AdditiveAttention": _attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _group_query,
}
