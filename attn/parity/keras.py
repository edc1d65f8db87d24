"""Weights of Keras' attention layers, in and out. Keras itself is never imported: a layer brings what is asked of it."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from attn.layers import keras as ours
from attn.layers.keras.masking import Version, check_version
from attn.parity import keras_models
from attn.parity.keras_layers import arrays_of, kind_of, name_of, no_partner, refuse, write
from attn.parity.trees import parameters, unflatten

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
        return keras_models.from_model(layer)
    partner = _LAYERS.get(kind)
    if partner is None:
        raise no_partner(layer)
    return partner(layer, version), {"params": unflatten(arrays_of(layer))}


def to_keras(params: Any, layer: Any) -> Any:
    """The Keras layer or model, built before, with these params. All of them are checked before one is written.

    Raises:
      ValueError: one line with the name, both shapes or both dtypes.
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
