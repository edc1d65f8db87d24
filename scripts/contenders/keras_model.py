"""The model built from Keras 3 layers, run through `fit` and `evaluate`, and compiled with Keras' defaults for the backend."""

import importlib
import os
from typing import Any

import numpy as np

from attn.models.classifier import ClassifierConfig
from scripts.contenders.workload import Contender, Workload, output_dim


def on_tensorflow(workload: Workload) -> Contender:
    return _contender("tensorflow", workload)


def on_jax(workload: Workload) -> Contender:
    return _contender("jax", workload)


def _contender(backend: str, workload: Workload) -> Contender:
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras: Any = importlib.import_module("keras")
    model = keras_model(keras, workload.model)
    optimizer = keras.optimizers.Adam(workload.config.learning_rate)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    tokens, labels = (x.astype(np.int32) for x in (workload.tokens, workload.labels))
    batch_size = workload.config.batch_size
    return Contender(
        model.count_params(),
        lambda: model.fit(tokens, labels, batch_size, shuffle=False, verbose=0),
        lambda: model.evaluate(tokens, labels, batch_size, verbose=0),
    )


def keras_model(keras: Any, config: ClassifierConfig) -> Any:
    """The classifier, built from Keras' own layers."""
    layers = keras.layers

    class AddPositions(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=input_shape[1:], initializer="uniform")

        def call(self, x):
            return x + self.table

    tokens = keras.Input((config.max_length,), dtype="int32")
    x = layers.Embedding(config.vocabulary_size, config.embed_dim)(tokens)
    if config.positions == "learned":
        x = AddPositions()(x)
    for index in range(config.num_layers):
        if config.body == "attention":
            attended = layers.Attention(use_scale=True)([x, x])
        else:
            attention = layers.MultiHeadAttention(config.num_heads, config.key_dim, output_shape=output_dim(config, index))
            attended = attention(x, x)
        attended = layers.Dropout(config.dropout_rate)(attended)
        if config.body == "transformer":
            x = layers.LayerNormalization(epsilon=1e-6)(x + attended)
            hidden = layers.Dense(config.feedforward_dim, activation="relu")(x)
            hidden = layers.Dropout(config.dropout_rate)(layers.Dense(config.embed_dim)(hidden))
            x = layers.LayerNormalization(epsilon=1e-6)(x + hidden)
        else:
            x = attended
    probabilities = layers.Dense(config.num_classes, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(tokens, probabilities)
