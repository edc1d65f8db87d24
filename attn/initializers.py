"""Keras' initialisers, where `jax.nn.initializers` has another rule or none.

Keras' `glorot_uniform` up to 3.14 takes the fans of a `(D, N, H)` kernel as a convolution's: shape[-2] and shape[-1], times
the product of the rest. That is `jax.nn.initializers.glorot_uniform()` on the whole kernel, as `flax.linen.Einsum` calls it
(linen's `DenseGeneral` flattens the kernel first, which is the rule of Keras 3.15).
"""

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

glorot_uniform = jax.nn.initializers.glorot_uniform


def symmetric_uniform(limit: float = 0.05) -> Initializer:
    """U(−limit, limit): Keras' "uniform", the default of its `Embedding` (2.11 to 3.15)."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None):  # jax.nn.initializers' own names
        return jax.random.uniform(key, shape, dtype, -limit, limit, out_sharding=out_sharding)

    return init
