"""The attention weights and the gradient × input of a classifier for one text."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import attn
from attn.layers.keras import TokenAndPositionEmbedding
from attn.layers.keras.base import AttentionLayer
from attn.models.classifier import Classifier
from attn.viewer import Rows


class Read(NamedTuple):
    """What a classifier made of one text."""

    logits: np.ndarray  # float32 [C]
    layers: list[Rows]
    effect: np.ndarray  # float32 [T]: gradient × input of the margin


def read(model: Classifier, params: Any, tokens: np.ndarray) -> Read:
    """Reads one text.

    Args:
      model: the classifier.
      params: its parameters.
      tokens: integers `[T]`.

    Returns:
      The logits; the weights of each layer, which are computed some queries at a time; and the effect: Σ_d x_d ∂m/∂x_d of each
      token's embedding x, without its position. The margin m is the predicted class's logit less the mean of the others.
    """
    ids = jnp.asarray(tokens, jnp.int32)
    with captured() as calls:
        logits = np.asarray(model.apply({"params": params}, ids))
    return Read(logits, [rows_of(*call) for call in calls], effect(model, params, ids, int(logits.argmax())))


@contextmanager
def captured() -> Iterator[list[tuple[jax.Array, jax.Array, dict[str, Any]]]]:
    """Yields a list to which each attention layer adds its query, key and options, as it gives them to `attn.attend`."""
    calls: list[tuple[jax.Array, jax.Array, dict[str, Any]]] = []

    def intercept(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "_attend" or not isinstance(context.module, AttentionLayer):
            return run(*args, **kwargs)
        kind, operator, *others = args

        def kept(query: jax.Array, key: jax.Array, value: jax.Array, **options: Any) -> jax.Array:
            calls.append((query, key, options))
            return operator(query, key, value, **options)

        return run(kind, kept, *others, **kwargs)

    with nn.intercept_methods(intercept):
        yield calls


def rows_of(query: jax.Array, key: jax.Array, options: dict[str, Any]) -> Rows:
    """The weights of queries `[T, N, H]` and keys `[T, N, H]`, by `attn.attention_weights` for some queries at a time."""

    def some(start: int, stop: int) -> np.ndarray:
        places = jnp.arange(start, stop, dtype=jnp.int32)
        return np.asarray(attn.attention_weights(query[start:stop], key, query_positions=places, **options))

    return Rows(query.shape[-2], query.shape[-3], some)


def effect(model: Classifier, params: Any, tokens: jax.Array, label: int) -> np.ndarray:
    """Gradient × input of the margin of a label, float32 `[T]`."""

    def margin(added: jax.Array) -> jax.Array:
        def intercept(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
            found = run(*args, **kwargs)
            mine = isinstance(context.module, TokenAndPositionEmbedding) and context.method_name == "__call__"
            return found + added.astype(found.dtype) if mine else found

        with nn.intercept_methods(intercept):
            logits: Any = model.apply({"params": params}, tokens)
        return logits[label] - (jnp.sum(logits) - logits[label]) / (logits.shape[-1] - 1)

    inputs = jnp.asarray(params["embedding"]["tokens"]["embedding"])[tokens]
    return np.asarray(jnp.sum(jax.jit(jax.grad(margin))(jnp.zeros(inputs.shape, jnp.float32)) * inputs, -1))
