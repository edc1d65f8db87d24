"""How each framework initialises the weights of its attention layers, by the name of the framework."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import initializers as jax_initializers
from jax.nn.initializers import Initializer

from attn._validation import check_name

glorot_uniform = jax_initializers.glorot_uniform


def symmetric_uniform(limit: float = 0.05) -> Initializer:
    """U(−limit, limit): Keras' "uniform", the default of its `Embedding` (2.11 to 3.15)."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None):  # jax.nn.initializers' own names
        return jax.random.uniform(key, shape, dtype, -limit, limit, out_sharding=out_sharding)

    return init


class Family(NamedTuple):
    """The initialisers of a framework. Biases of attention's projections are zeros in all of them."""

    project: Initializer  # of queries, keys and values, [D, N, H]
    combine: Initializer  # of the heads' outputs, [N, V, O]
    dense: Initializer  # [in, out]
    dense_bias: Callable[[int], Initializer]  # of a dense layer with so many inputs
    embedding: Initializer


def _zeros(inputs: int) -> Initializer:
    del inputs
    return jax_initializers.zeros


def _by_inputs(key, shape, dtype=jnp.float32, out_sharding=None):
    """U(±1/√inputs), all axes but the last being inputs: what `torch.nn.Linear` gets from kaiming_uniform(a=√5)."""
    return symmetric_uniform(1 / math.sqrt(math.prod(shape[:-1])))(key, shape, dtype, out_sharding)


def _torch_packed(key, shape, dtype=jnp.float32, out_sharding=None):
    """U(±√(6 / (D + 3 E))): xavier_uniform on the packed `in_proj_weight` [3 E, D]; here E is N · H."""
    fans = shape[0] + 3 * math.prod(shape[1:])
    return symmetric_uniform(math.sqrt(6 / fans))(key, shape, dtype, out_sharding)


FAMILIES: dict[str, Family] = {
    # Up to 3.14 the fans of a (D, N, H) kernel are a convolution's: shape[-2] and shape[-1], times the product of the rest.
    "keras_2.11": Family(glorot_uniform(), glorot_uniform(), glorot_uniform(), _zeros, symmetric_uniform()),
    # From 3.15 on what is contracted is the input, and what comes out the output (keras-team/keras#22789).
    "keras_3.15": Family(
        glorot_uniform(in_axis=0, out_axis=(1, 2)),
        glorot_uniform(in_axis=(0, 1)),
        glorot_uniform(),
        _zeros,
        symmetric_uniform(),
    ),
    # flax.linen 0.12: lecun_normal, truncated at two standard deviations; `Embed` is normal(1/√features).
    "flax": Family(
        jax_initializers.lecun_normal(in_axis=0, out_axis=(1, 2)),
        jax_initializers.lecun_normal(in_axis=(0, 1)),
        jax_initializers.lecun_normal(),
        _zeros,
        jax_initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0),
    ),
    # torch 2.13. With kdim or vdim of their own the three are packed no more, and start as xavier_uniform each.
    "torch": Family(
        _torch_packed,
        _by_inputs,
        _by_inputs,
        lambda inputs: symmetric_uniform(1 / math.sqrt(inputs)),
        jax_initializers.normal(1.0),
    ),
}


def family(name: str) -> Family:
    """The initialisers of a framework by its name. Raises ValueError with the closest name where there is none."""
    return FAMILIES[check_name("initializer", name, FAMILIES)]


def of_keras(version: str | None) -> str:
    """The family of a version of Keras; None is the blog's, 2.11."""
    return "keras_3.15" if version == "3.15" else "keras_2.11"
