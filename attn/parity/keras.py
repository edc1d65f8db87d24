"""Weights of Keras' attention layers, in and out. Keras itself is never imported: a layer brings what is asked of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flax import linen as nn

from attn.layers import keras as ours
from attn.layers.keras.masking import Version

Params = dict[str, Any]  # nested, of NumPy arrays


def from_keras(layer: Any, *, version: Version | None = None) -> tuple[nn.Module, Params]:
    """A built layer or model of Keras (2.11 to 3.15, any backend) as a linen module and its `{"params": …}`.

    Layers: Attention, AdditiveAttention, MultiHeadAttention, GroupQueryAttention. A model of the blog's four architectures
    becomes an `attn.models.classifier.Classifier` (see `attn.parity.keras_models`).

    Args:
      version: of our layer: None is the contract, "2.11" and "3.15" are Keras' own rows without a key.

    Raises:
      ValueError: one line with the layer and the field, for what has no partner here.
    """
    kind = kind_of(layer)
    if kind in MODELS:
        from attn.parity import keras_models

        return keras_models.from_model(layer)
    nearest = _LAYERS.get(kind)
    if nearest is None:
        raise ValueError(f"{name_of(layer)} is a {kind}: there is a partner for {', '.join(_LAYERS)} and for models of them")
    return nearest(layer, version), {"params": weights_of(layer)}


def to_keras(params: Params, layer: Any) -> Any:
    """The Keras layer or model, built before, with these params. Every shape is checked before a weight is written.

    Raises:
      ValueError: one line with the weight and both shapes.
    """
    params = params.get("params", params)
    if kind_of(layer) in MODELS:
        from attn.parity import keras_models

        return keras_models.to_model(params, layer)
    return write({(): layer}, params)


MODELS = ("Functional", "Sequential", "Model")
_NORM_EPSILON = 1e-6


def kind_of(layer: Any) -> str:
    """Its class' name, in Keras 3.15's spelling where that changed."""
    return {"GroupedQueryAttention": "GroupQueryAttention"}.get(name := type(layer).__name__, name)


def name_of(layer: Any) -> str:
    return f"Keras layer {getattr(layer, 'name', layer)!r}"


def refuse(layer: Any, **allowed: Any) -> None:
    """Raises where the layer's config has another value in one of these fields; a field it lacks is as it should be."""
    config = layer.get_config()
    for field, value in allowed.items():
        if field in config and config[field] not in (value, None):
            raise ValueError(f"{name_of(layer)} has {field}={config[field]!r}: only {value!r} has a partner here")


def weights_of(layer: Any) -> Params:
    """Its weights under our names."""
    names, weights = weight_names(layer), layer.get_weights()
    if len(names) != len(weights):
        raise ValueError(f"{name_of(layer)} has {len(weights)} weights where {len(names)} belong: is it built? Call it once")
    params: Params = {}
    for path, weight in zip(names, weights, strict=True):
        *folders, leaf = path
        at = params
        for folder in folders:
            at = at.setdefault(folder, {})
        at[leaf] = np.asarray(weight)
    return params


def weight_names(layer: Any) -> list[tuple[str, ...]]:
    """Our paths of its weights, in Keras' order of them."""
    config, kind = layer.get_config(), kind_of(layer)
    if kind in ("MultiHeadAttention", "GroupQueryAttention"):
        parts = ("kernel", "bias") if config["use_bias"] else ("kernel",)
        return [(name, part) for name in ("query", "key", "value", "attention_output") for part in parts]
    if kind == "Dense":
        return [("kernel",), ("bias",)] if config["use_bias"] else [("kernel",)]
    names = {"Embedding": ["embedding"], "LayerNormalization": ["scale", "bias"]}.get(kind)
    if names is None:
        names = ["scale"] if config["use_scale"] else []
        names += ["concat_score_weight"] if config.get("score_mode") == "concat" else []
    return [(name,) for name in names]


def write(layers: dict[tuple[str, ...], Any], params: Params) -> Any:
    """Params into the layers, each at its path; the last of them."""
    found = []
    for path, layer in layers.items():
        weights = []
        for name, now in zip(weight_names(layer), weights_of_flat(layer), strict=True):
            weights.append(at(params, (*path, *name)))
            if weights[-1].shape != now.shape:
                where = "/".join((*path, *name))
                raise ValueError(f"params {where} {weights[-1].shape} does not fit {name_of(layer)}, {now.shape}")
        found.append((layer, weights))
    for layer, weights in found:
        layer.set_weights(weights)
    return found[-1][0]


def weights_of_flat(layer: Any) -> list[np.ndarray]:
    weights_of(layer)  # is it built?
    return layer.get_weights()


def at(params: Params, path: tuple[str, ...]) -> np.ndarray:
    node: Any = params
    for name in path:
        if not isinstance(node, dict) or name not in node:
            raise ValueError(f"params have no {'/'.join(path)}")
        node = node[name]
    return np.asarray(node)


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
