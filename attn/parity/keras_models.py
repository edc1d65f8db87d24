"""Converts Keras models of the blog's four architectures to our classifier, and back.

The layers of a model are recognised by their class: Embedding (a second one holds the positions), Attention or
MultiHeadAttention, LayerNormalization, and Dense, of which the last one gives the logits. Their sizes are checked. How they are
connected cannot be read from the layers, so the outputs of the two models for the same tokens are compared as well.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.models.classifier import Classifier, ClassifierConfig
from attn.parity.keras_layers import check_plain, kind_of, name_of, read, require, write
from attn.parity.trees import Arrays, unflatten

_TOLERANCE = 1e-3  # relative to the largest log probability, with the random weights of _check_outputs
Layers = dict[str, Any]  # the Keras layers, by the prefix of their parameters in the classifier


def from_model(model: Any) -> tuple[Classifier, dict[str, Any]]:
    """The classifier and its `{"params": …}` for a Keras model; see `attn.parity.from_keras`."""
    config, layers = _read(model)
    return Classifier(config), {"params": unflatten(read(layers))}


def to_model(arrays: Arrays, model: Any) -> Any:
    """Writes the classifier's arrays into the model, and returns it; see `attn.parity.to_keras`."""
    _, layers = _read(model)
    write(arrays, layers, f"Keras model {model.name!r}")
    return model


def _read(model: Any) -> tuple[ClassifierConfig, Layers]:
    """The classifier's config, and the Keras layers by the prefix of their parameters in the classifier."""
    by_kind = _layers_by_kind(model)
    embeddings, single_head, multi_head = by_kind["Embedding"], by_kind["Attention"], by_kind["MultiHeadAttention"]
    norms, dense = by_kind["LayerNormalization"], by_kind["Dense"]
    if len(embeddings) not in (1, 2) or not dense or bool(single_head) == bool(multi_head):
        counts = ", ".join(f"{len(layers)} {kind}" for kind, layers in by_kind.items())
        raise ValueError(
            f"Keras model {model.name!r} has {counts}: it must have 1 Embedding, or 2 with positions, either Attention or "
            "MultiHeadAttention, and at least 1 Dense"
        )
    body = "attention" if single_head else "transformer" if norms else "multi_head"
    layers: Layers = {f"embedding/{name}/": x for name, x in zip(("tokens", "positions"), embeddings, strict=False)}
    for index, layer in enumerate(single_head or multi_head):
        name = f"{body}_{index}"
        if body != "transformer":
            layers[f"{name}/"] = layer
            continue
        layers[f"{name}/MultiHeadAttention_0/"] = layer
        for candidates, kind in ((norms, "LayerNorm"), (dense[:-1], "Dense")):  # two of each in a block
            layers |= {f"{name}/{kind}_{i}/": x for i, x in enumerate(candidates[2 * index : 2 * index + 2])}
    layers["logits/"] = dense[-1]
    used = {id(layer) for layer in layers.values()}
    unused = [layer for of_kind in by_kind.values() for layer in of_kind if id(layer) not in used]
    if unused:
        raise ValueError(f"{name_of(unused[0])} of Keras model {model.name!r} is not part of a {body} classifier")
    config = _config(body, layers, model)
    _check_outputs(model, config, layers)
    return config, layers


def _layers_by_kind(model: Any) -> dict[str, list[Any]]:
    """The layers with weights, in the order in which they were created, including those inside of other layers.

    Raises ValueError for a layer with weights that cannot be converted.
    """
    by_kind: dict[str, list[Any]] = {
        kind: [] for kind in ("Embedding", "Attention", "MultiHeadAttention", "LayerNormalization", "Dense")
    }

    def visit(layer: Any) -> None:
        kind = kind_of(layer)
        if kind in by_kind:
            check_plain(layer)
            by_kind[kind].append(layer)
        elif inner := list(layer._flatten_layers(include_self=False, recursive=False)):
            for x in inner:
                visit(x)
        elif layer.weights:
            raise ValueError(f"{name_of(layer)} is a {kind}: it has weights, and only {', '.join(by_kind)} can be converted")

    visit(model)
    return by_kind


def _config(body: str, layers: Layers, model: Any) -> ClassifierConfig:
    tokens, logits, length = layers["embedding/tokens/"], layers["logits/"], _length(model)
    positions = layers.get("embedding/positions/")
    embed_dim = tokens.output_dim
    attention = [x for x in layers.values() if kind_of(x) in ("Attention", "MultiHeadAttention")]
    inner = [x for prefix, x in layers.items() if prefix.endswith("/Dense_0/")]
    config = attention[0].get_config()
    for layer in attention:
        if body == "attention":
            require(layer, use_scale=True, score_mode="dot", dropout=0.0)
        else:
            require(layer, use_gate=False, use_bias=True, dropout=0.0, value_dim=config["key_dim"], sliding_window=None)
            require(layer, num_heads=config["num_heads"], key_dim=config["key_dim"])
    width = attention[-1].get_weights()[-1].shape[-1] if body == "multi_head" else embed_dim
    if logits.units < 2 or logits.get_weights()[0].shape[0] != width:
        shape = logits.get_weights()[0].shape
        raise ValueError(f"{name_of(logits)} has a kernel {shape}: it must map {width} features to at least 2 classes")
    for layer in layers.values():
        require(layer, epsilon=1e-6, activation="relu") if layer in inner else require(layer, epsilon=1e-6)
    return ClassifierConfig(
        body=body,  # pyright: ignore[reportArgumentType]
        vocabulary_size=tokens.input_dim,
        max_length=positions.input_dim if positions is not None else length,
        num_classes=logits.units,
        embed_dim=embed_dim,
        num_layers=len(attention),
        num_heads=config.get("num_heads", 1),
        key_dim=config.get("key_dim", embed_dim),
        output_dims=tuple(int(x.get_weights()[-1].shape[-1]) for x in attention) if body == "multi_head" else (),
        feedforward_dim=inner[0].units if inner else 1,
        positions="learned" if positions is not None else "none",
        dropout_rate=0.0,  # Keras' Dropout layers are not converted: to train, set the rate
        mask_padding=bool(tokens.mask_zero),
    )


def _length(model: Any) -> int:
    """The input's number of tokens T, or 16 where it is not fixed. Raises ValueError unless [B, T] is mapped to [B, C]."""
    shapes = model.input_shape, model.output_shape
    if any(not isinstance(shape, tuple) or len(shape) != 2 for shape in shapes):
        raise ValueError(
            f"Keras model {model.name!r} maps {shapes[0]} to {shapes[1]}: it must map tokens [B, T] to classes [B, C]"
        )
    return int(shapes[0][1] or 16)


def _check_outputs(model: Any, config: ClassifierConfig, layers: Layers) -> None:
    """Raises ValueError where the two models give different log probabilities for the same tokens, some of them padding.

    The comparison uses random weights, because with freshly initialised ones, which are small, other architectures would look
    the same. The model's own weights are restored.
    """
    rng, weights = np.random.default_rng(0), model.get_weights()
    tokens = rng.integers(1, config.vocabulary_size, (4, _length(model))).astype(np.int32)
    tokens[1, : tokens.shape[1] // 2] = tokens[2, ::3] = tokens[3, tokens.shape[1] // 2 :] = 0
    try:
        model.set_weights([(0.4 * rng.normal(size=w.shape)).astype(w.dtype) for w in weights])
        params = {"params": unflatten(read(layers))}
        theirs = np.asarray(model(tokens), np.float64)
    finally:
        model.set_weights(weights)
    if model.layers[-1].get_config().get("activation") == "softmax":
        theirs = np.log(np.maximum(theirs, 1e-30))
    theirs = theirs - np.log(np.sum(np.exp(theirs), axis=-1, keepdims=True))
    ours = Classifier(config).apply(params, jnp.asarray(tokens))
    ours = np.maximum(np.asarray(jax.nn.log_softmax(jnp.asarray(ours)), np.float64), np.log(1e-30))
    difference = np.abs(np.maximum(theirs, np.log(1e-30)) - ours).max()
    if not difference <= _TOLERANCE * max(1.0, np.abs(ours).max()):
        raise ValueError(
            f"Keras model {model.name!r} has the layers of a {config.body} classifier, but connects them differently: for the "
            f"same tokens the log probabilities of the two differ by {difference:.2g}"
        )
