"""The model written in plain flax.linen, with `optax.adam` and the whole batch under one `jax.jit`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from attn.models.classifier import ClassifierConfig
from scripts.contenders.workload import Contender, Workload, output_dim


class PlainClassifier(nn.Module):
    """The classifier, built from linen's own layers with linen's initialisers."""

    config: ClassifierConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, deterministic: bool) -> jax.Array:
        config = self.config
        x = nn.Embed(config.vocabulary_size, config.embed_dim)(tokens)
        if config.positions == "learned":
            x = x + nn.Embed(config.max_length, config.embed_dim)(jnp.arange(tokens.shape[1]))
        for index in range(config.num_layers):
            x = self._layer(index, x, deterministic)
        return nn.Dense(config.num_classes)(jnp.mean(x, axis=1))

    def _layer(self, index: int, x: jax.Array, deterministic: bool) -> jax.Array:
        config, drop = self.config, nn.Dropout(self.config.dropout_rate, deterministic=deterministic)
        if config.body == "attention":
            scale = self.param(f"scale_{index}", nn.initializers.ones, ())
            weights = nn.softmax(scale * jnp.einsum("btd,bsd->bts", x, x))
            return drop(jnp.einsum("bts,bsd->btd", weights, x))
        inner, outer = config.num_heads * config.key_dim, output_dim(config, index)
        attended = drop(nn.MultiHeadDotProductAttention(config.num_heads, qkv_features=inner, out_features=outer)(x))
        if config.body == "multi_head":
            return attended
        x = nn.LayerNorm()(x + attended)
        hidden = nn.relu(nn.Dense(config.feedforward_dim)(x))
        return nn.LayerNorm()(x + drop(nn.Dense(config.embed_dim)(hidden)))


def linen(workload: Workload) -> Contender:
    jax.config.update("jax_enable_compilation_cache", False)
    model, optimizer = PlainClassifier(workload.model), optax.adam(workload.config.learning_rate)
    shape = -1, workload.config.batch_size
    batches = [
        (tokens, labels)
        for tokens, labels in zip(
            jnp.asarray(workload.tokens, jnp.int32).reshape(*shape, workload.model.max_length),
            jnp.asarray(workload.labels, jnp.int32).reshape(shape),
            strict=True,
        )
    ]
    init_rng, dropout_rng = jax.random.split(jax.random.key(0))
    params = jax.jit(model.init, static_argnums=2)(init_rng, batches[0][0][:1], True)
    state = params, optimizer.init(params), jnp.zeros((), jnp.int32)

    @jax.jit
    def train_step(state: Any, tokens: jax.Array, labels: jax.Array) -> Any:
        params, optimizer_state, index = state

        def mean_loss(params: Any) -> jax.Array:
            rngs = {"dropout": jax.random.fold_in(dropout_rng, index)}
            logits: Any = model.apply(params, tokens, False, rngs=rngs)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, gradient = jax.value_and_grad(mean_loss)(params)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state, index + 1), loss

    @jax.jit
    def eval_step(params: Any, tokens: jax.Array, labels: jax.Array) -> Any:
        logits: Any = model.apply(params, tokens, True)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(loss), jnp.sum(jnp.argmax(logits, axis=-1) == labels)

    def train() -> None:
        nonlocal state
        for batch in batches:
            state, _ = train_step(state, *batch)
        jax.block_until_ready(state)

    def evaluate() -> None:
        jax.block_until_ready([eval_step(state[0], *batch) for batch in batches])

    return Contender(sum(leaf.size for leaf in jax.tree.leaves(params)), train, evaluate)
