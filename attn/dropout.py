"""Which attention weights dropout keeps: a function of the random key and of the indices of the weight only.

The random bits of a weight are Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3") of the counter (query, key), under a key that is Threefry of (batch, head). The bits of a block therefore do not depend on
where, in which order or how often it is computed.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attn.shapes import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(key: tuple[Array, Array], counter: tuple[Array, Array]) -> tuple[Array, Array]:
    """Threefry-2x32: two uint32 words for each counter of two words. All four arrays broadcast."""
    schedule = (*key, key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = counter[0] + schedule[0], counter[1] + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << rotation | y >> (32 - rotation)) ^ x
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def words(dropout_rng: Array) -> Array:
    """The two uint32 words that `keep` takes as its key, from a key of `jax.random` of any implementation."""
    return jax.random.bits(dropout_rng, (2,), jnp.uint32)


def keep(rng: Array, rate: float, batch: Array, head: Array, query: Array, key: Array) -> Array:
    """True, with probability 1 − rate, for a weight that is kept. The four indices are int32 and broadcast."""
    batch, head, query, key = (index.astype(jnp.uint32) for index in (batch, head, query, key))
    bits, _ = threefry(threefry((rng[0], rng[1]), (batch, head)), (query, key))
    return bits >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def bernoulli(rng: Array, probability: float | Array, shape: tuple[int, ...]) -> Array:
    """`jax.random.bernoulli(rng, probability, shape)`, with the same bits, in less time on a CPU.

    JAX's own function takes five loops over the numbers there and stores the intermediate results; this one takes one loop.
    Keys of another implementation than Threefry, JAX's default, are passed on to JAX.
    """
    config: Any = jax.config  # its fields have no static types
    as_by_default = str(jax.random.key_impl(rng)) == "threefry2x32" and config.jax_threefry_partitionable
    if not as_by_default or math.prod(shape) >= 2**32:
        return jax.random.bernoulli(rng, probability, shape)
    key, limit = jax.random.key_data(rng), _limit(probability)
    half = -(-math.prod(shape) // 2)

    def of_half(first: Array) -> Array:
        x, y = threefry((key[0], key[1]), (jnp.zeros((), jnp.uint32), first + lax.iota(jnp.uint32, half)))
        return (x ^ y) >> 9 < limit

    # A loop, because XLA would otherwise fuse the rounds into each consumer of the result and compute them again there.
    halves = lax.map(of_half, jnp.array([0, half], jnp.uint32))
    return halves.reshape(-1)[: math.prod(shape)].reshape(shape)


def _limit(probability: float | Array) -> Array:
    """The number of 23 bits below which a number is kept: uniform floats have 23 bits. Exact for an array, too."""
    if isinstance(probability, jax.Array):
        return jnp.ceil(probability.astype(jnp.float32) * 2**23).astype(jnp.uint32)
    return jnp.uint32(math.ceil(float(np.float32(probability)) * 2**23))
