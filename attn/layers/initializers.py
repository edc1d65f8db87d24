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

    def init(key, shape, dtype=jnp.float32, out_sharding=None):  # the names of the arguments are those of jax.nn.initializers
        return jax.random.uniform(key, shape, dtype, -limit, limit, out_sharding=out_sharding)

    return init


class Family(NamedTuple):
    """The initialisers of one framework. In all of them the biases of attention's projections start at 0.

    Attributes:
      project: for the projections of queries, keys and values, `[D, N, H]`.
      combine: for the projection of the heads' outputs, `[N, V, O]`.
      dense: for the kernel of a dense layer, `[inputs, outputs]`.
      dense_bias: from the number of inputs of a dense layer to the initialiser of its bias.
      embedding: for a table of embeddings.
    """

    project: Initializer
    combine: Initializer
    dense: Initializer
    dense_bias: Callable[[int], Initializer]
    embedding: Initializer


def _zeros(inputs: int) -> Initializer:
    del inputs
    return jax_initializers.zeros


def _by_inputs(key, shape, dtype=jnp.float32, out_sharding=None):
    """U(±1/√inputs), where all axes but the last are inputs: kaiming_uniform(a=√5), the default of `torch.nn.Linear`."""
    return symmetric_uniform(1 / math.sqrt(math.prod(shape[:-1])))(key, shape, dtype, out_sharding)


def _torch_packed(key, shape, dtype=jnp.float32, out_sharding=None):
    """U(±√(6 / (D + 3 E))) with E = N · H: PyTorch's xavier_uniform of the packed `in_proj_weight` `[3 E, D]`."""
    fan_sum = shape[0] + 3 * math.prod(shape[1:])
    return symmetric_uniform(math.sqrt(6 / fan_sum))(key, shape, dtype, out_sharding)


FAMILIES: dict[str, Family] = {
    # Up to 3.14, a [D, N, H] kernel has the fans of a convolution: shape[-2] and shape[-1], each times the other axes' product.
    "keras_2.11": Family(glorot_uniform(), glorot_uniform(), glorot_uniform(), _zeros, symmetric_uniform()),
    # From 3.15 on, the contracted axes are the fan in, and the axes of the output the fan out (keras-team/keras#22789).
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
    # torch 2.13. With kdim or vdim the three projections are not packed, and PyTorch initialises each by xavier_uniform.
    "torch": Family(
        _torch_packed,
        _by_inputs,
        _by_inputs,
        lambda inputs: symmetric_uniform(1 / math.sqrt(inputs)),
        jax_initializers.normal(1.0),
    ),
}


def family(name: str) -> Family:
    """The initialisers of a framework.

    Args:
      name: a key of `FAMILIES`.

    Raises:
      ValueError: an unknown name; the message has the closest known one.
    """
    return FAMILIES[check_name("initializer", name, FAMILIES)]


def of_keras(version: str | None) -> str:
    """The name of the family for a version of Keras; None means 2.11, the blog's version."""
    return "keras_3.15" if version == "3.15" else "keras_2.11"
