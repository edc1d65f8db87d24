"""Converts Keras layers and models to ours, and our weights back. Keras is not imported: the given layer is asked."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from attn.layers import keras as ours
from attn.layers.keras.masking import Version, check_version
from attn.parity import keras_models
from attn.parity.keras_layers import arrays_of, kind_of, name_of, require, unsupported, write
from attn.parity.trees import parameters, unflatten

MODELS = ("Functional", "Sequential", "Model")


def from_keras(layer: Any, *, version: Version | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Converts a Keras layer or model (2.11 to 3.15, any backend) to a linen module and its parameters.

    Args:
      layer: a built Attention, AdditiveAttention, MultiHeadAttention or GroupQueryAttention, which becomes our layer of the
        same name; or a model of one of the blog's four architectures, which becomes an
        `attn.models.classifier.Classifier` (see `attn.parity.keras_models`).
      version: the `version` of our layer. It decides what a query that may attend to no key gets: 0 with None, what that
        version of Keras gives with "2.11" and "3.15". It must be None for a model.

    Returns:
      The module and its `{"params": …}`: NumPy arrays, copied.

    Raises:
      ValueError: one line with the layer and the field, for what cannot be converted.

    Example:
      >>> layer, params = attn.parity.from_keras(keras_layer)
      >>> output = layer.apply(params, query, value)
    """
    kind = kind_of(layer)
    check_version(version)
    if kind in MODELS:
        if version is not None:
            raise ValueError(f"version={version!r} is for layers: a model becomes a Classifier, which has no version")
        return keras_models.from_model(layer)
    convert = _LAYERS.get(kind)
    if convert is None:
        raise unsupported(layer)
    return convert(layer, version), {"params": unflatten(arrays_of(layer))}


def to_keras(params: Any, layer: Any) -> Any:
    """Copies parameters of our layer or classifier into a Keras layer or model, in place.

    All of them are checked before any is written.

    Args:
      params: `{"params": …}` or the tree inside it.
      layer: the Keras layer or model that they are for, already built.

    Returns:
      The layer or model.

    Raises:
      ValueError: one line with the parameter and both shapes or dtypes; and what `from_keras` raises for the layer.
    """
    arrays = parameters(params)
    if kind_of(layer) in MODELS:
        return keras_models.to_model(arrays, layer)
    write(arrays, {"": layer}, name_of(layer))
    return layer


def _attention(layer: Any, version: Version | None) -> nn.Module:
    config = layer.get_config()
    options = {"use_scale": config["use_scale"], "dropout": config["dropout"], "version": version}
    if kind_of(layer) == "AdditiveAttention":
        return ours.AdditiveAttention(causal=bool(getattr(layer, "causal", False)), **options)
    score_mode = config.get("score_mode", "dot")
    return ours.Attention(score_mode=score_mode, causal=bool(getattr(layer, "causal", False)), **options)


def _multi_head(layer: Any, version: Version | None) -> nn.Module:
    require(layer, use_gate=False, sliding_window=None)
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
    require(layer, use_gate=False, sliding_window=None)
    names = ("head_dim", "num_query_heads", "num_key_value_heads", "dropout", "use_bias")
    return ours.GroupQueryAttention(**{name: getattr(layer, name) for name in names}, version=version)


_LAYERS: dict[str, Callable[[Any, Version | None], nn.Module]] = {
    "Attention": _attention,
    "AdditiveAttention": _attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _group_query,
}
