"""Whole Keras models of the blog's four architectures as our classifier, and back.

The layers of a model are told by their kinds: Embedding (a second one is of the positions), Attention or MultiHeadAttention,
LayerNormalization and Dense, the last Dense being the logits. Their sizes are checked, and since how they are connected
cannot be read from them, the two models' answers to the same tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.models.classifier import Classifier, ClassifierConfig
from attn.parity.keras_layers import kind_of, name_of, read, refuse, write
from attn.parity.trees import Arrays, unflatten

_TOLERANCE = 1e-3  # of the largest log probability, with weights as large as _compare's
Layers = dict[str, Any]  # by the prefix of their names in the classifier


def from_model(model: Any) -> tuple[Classifier, dict[str, Any]]:
    """The classifier and its `{"params": …}`; raises ValueError as `attn.parity.from_keras` says."""
    config, layers = _read(model)
    return Classifier(config), {"params": unflatten(read(layers))}


def to_model(arrays: Arrays, model: Any) -> Any:
    """The model with the classifier's arrays."""
    _, layers = _read(model)
    write(arrays, layers, f"Keras model {model.name!r}")
    return model


def _read(model: Any) -> tuple[ClassifierConfig, Layers]:
    """The classifier's config, and the prefix of each Keras layer in its params."""
    found = _by_kind(model)
    embeddings, attention, heads = found["Embedding"], found["Attention"], found["MultiHeadAttention"]
    norms, dense = found["LayerNormalization"], found["Dense"]
    if len(embeddings) not in (1, 2) or not dense or bool(attention) == bool(heads):
        counts = ", ".join(f"{len(layers)} {kind}" for kind, layers in found.items())
        raise ValueError(
            f"Keras model {model.name!r} has {counts}: it must have 1 Embedding, or 2 with positions, either Attention or "
            "MultiHeadAttention, and Dense"
        )
    body = "attention" if attention else "transformer" if norms else "multi_head"
    layers: Layers = {f"embedding/{name}/": x for name, x in zip(("tokens", "positions"), embeddings, strict=False)}
    for index, layer in enumerate(attention or heads):
        name = f"{body}_{index}"
        if body != "transformer":
            layers[f"{name}/"] = layer
            continue
        layers[f"{name}/MultiHeadAttention_0/"] = layer
        for of_block, kind in ((norms, "LayerNorm"), (dense[:-1], "Dense")):
            layers |= {f"{name}/{kind}_{i}/": x for i, x in enumerate(of_block[2 * index : 2 * index + 2])}
    layers["logits/"] = dense[-1]
    used = {id(layer) for layer in layers.values()}
    left = [layer for kind in found.values() for layer in kind if id(layer) not in used]
    if left:
        raise ValueError(f"{name_of(left[0])} of Keras model {model.name!r} has no place in a {body} classifier")
    config = _config(body, layers, model)
    _compare(model, config, layers)
    return config, layers


def _by_kind(model: Any) -> dict[str, list[Any]]:
    """Its layers with weights, those inside of other layers too, in the order in which they were made."""
    found: dict[str, list[Any]] = {
        kind: [] for kind in ("Embedding", "Attention", "MultiHeadAttention", "LayerNormalization", "Dense")
    }

    def visit(layer: Any) -> None:
        kind = kind_of(layer)
        if kind in found:
            found[kind].append(layer)
        elif inner := list(layer._flatten_layers(include_self=False, recursive=False)):
            for x in inner:
                visit(x)
        elif layer.weights:
            raise ValueError(f"{name_of(layer)} is a {kind}: it has weights, and no partner in the classifier")

    visit(model)
    return found


def _config(body: str, layers: Layers, model: Any) -> ClassifierConfig:
    tokens, logits, length = layers["embedding/tokens/"], layers["logits/"], _length(model)
    positions = layers.get("embedding/positions/")
    embed_dim = tokens.output_dim
    attention = [x for x in layers.values() if kind_of(x) in ("Attention", "MultiHeadAttention")]
    inner = [x for prefix, x in layers.items() if prefix.endswith("/Dense_0/")]
    config = attention[0].get_config()
    for layer in attention:
        if body == "attention":
            refuse(layer, use_scale=True, score_mode="dot", dropout=0.0)
        else:
            refuse(layer, use_gate=False, use_bias=True, dropout=0.0, value_dim=config["key_dim"], sliding_window=None)
            refuse(layer, num_heads=config["num_heads"], key_dim=config["key_dim"])
    width = attention[-1].get_weights()[-1].shape[-1] if body == "multi_head" else embed_dim
    if logits.units < 2 or logits.get_weights()[0].shape[0] != width:
        shape = logits.get_weights()[0].shape
        raise ValueError(f"{name_of(logits)} has a kernel {shape}: it must be from {width} features to 2 classes at least")
    for layer in layers.values():
        refuse(layer, epsilon=1e-6, activation="relu") if layer in inner else refuse(layer, epsilon=1e-6)
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
        dropout_rate=0.0,  # Keras' own Dropout layers are gone: train with the rate that you want
        mask_padding=bool(tokens.mask_zero),
    )


def _length(model: Any) -> int:
    shapes = model.input_shape, model.output_shape
    if any(not isinstance(shape, tuple) or len(shape) != 2 for shape in shapes):
        raise ValueError(
            f"Keras model {model.name!r} maps {shapes[0]} to {shapes[1]}: it must map tokens [B, T] to classes [B, C]"
        )
    return int(shapes[0][1] or 16)


def _compare(model: Any, config: ClassifierConfig, layers: Layers) -> None:
    """Raises where the two models' log probabilities of the same tokens differ, padding among them.

    With random weights, since fresh ones are so small that much else would look the same; the model gets its own back.
    """
    rng, kept = np.random.default_rng(0), model.get_weights()
    tokens = rng.integers(1, config.vocabulary_size, (4, _length(model))).astype(np.int32)
    tokens[1, : tokens.shape[1] // 2] = tokens[2, ::3] = tokens[3, tokens.shape[1] // 2 :] = 0
    try:
        model.set_weights([(0.4 * rng.normal(size=w.shape)).astype(w.dtype) for w in kept])
        params = {"params": unflatten(read(layers))}
        theirs = np.asarray(model(tokens), np.float64)
    finally:
        model.set_weights(kept)
    if model.layers[-1].get_config().get("activation") == "softmax":
        theirs = np.log(np.maximum(theirs, 1e-30))
    theirs = theirs - np.log(np.sum(np.exp(theirs), axis=-1, keepdims=True))
    ours = Classifier(config).apply(params, jnp.asarray(tokens))
    ours = np.maximum(np.asarray(jax.nn.log_softmax(jnp.asarray(ours)), np.float64), np.log(1e-30))
    difference = np.abs(np.maximum(theirs, np.log(1e-30)) - ours).max()
    if not difference <= _TOLERANCE * max(1.0, np.abs(ours).max()):
        raise ValueError(
            f"Keras model {model.name!r} has the layers of a {config.body} classifier, connected otherwise: on the same tokens "
            f"their log probabilities differ by {difference:.2g}"
        )
