"""linen's `Dense` and `Dropout` with the same parameters and semantics, written so that XLA's CPU backend runs them faster."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from attn.dropout import bernoulli
from attn.layers.flags import Flag
from attn.shapes import Array


def promoting(module: Callable[..., Any], *inputs: Array) -> Any:
    """`module(*inputs)`, where dtypes are promoted as usual, also inside of `jax.numpy_dtype_promotion("strict")`.

    linen promotes inputs and parameters implicitly, so that the strict mode would forbid bfloat16 inputs of a float32 layer.
    """
    with jax.numpy_dtype_promotion("standard"):
        return module(*inputs)


def cast(dtype: DTypeLike | None, *arrays: Array) -> tuple[Array, ...]:
    """The arrays in a layer's `dtype`; where it is None, as they are."""
    return arrays if dtype is None else tuple(jnp.asarray(array, dtype) for array in arrays)


def promote_product(*arrays: Array | None, dtype: Any = None, inexact: bool = True) -> list[Array | None]:
    """The argument `promote_dtype` of linen's layers, for a product in `dtype` to which the bias is added as it is.

    linen's own would cast the bias too. Its gradient is a sum over all positions, which XLA's CPU backend then computes in
    bfloat16: with 64 reviews of 256 words it is off by 2 to 50 %, and the gradient of a kernel by up to 2 %.
    """
    products = arrays if dtype is None else arrays[:2]  # of x, kernel and bias
    return [*promote_dtype(*products, dtype=dtype, inexact=inexact), *arrays[len(products) :]]


class Dense(nn.Module):
    """`flax.linen.Dense`: x kernel + bias.

    In the product the kernel has an additional axis of size 1. Without that axis, XLA computes the kernel's gradient as a
    product of two transposed arrays, for which its CPU backend reaches a tenth of a core's speed.

    Attributes:
      features: the size of the output.
      kernel_init: the initialiser of the kernel `[D, features]`.
      bias_init: the initialiser of the bias `[features]`.
      dtype: the dtype of the computation; None promotes input and parameters. The bias is added as in `promote_product`.
    """

    features: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[.., D]` to `[.., features]`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel = cast(self.dtype, x, kernel)
        product = promoting(lambda x, kernel: jnp.einsum("...a,abc->...bc", x, kernel)[..., 0, :], x, kernel[:, None])
        return cast(self.dtype, promoting(jnp.add, product, bias.reshape((1,) * (x.ndim - 1) + (-1,))))[0]


def embed(table: nn.Embed, tokens: Array) -> Array:
    """`table(tokens)`, also inside of a mesh with explicit axes, where a gather must say how its result is sharded."""
    sharding = jax.typeof(tokens).sharding
    if not sharding.mesh.explicit_axes:
        return table(tokens)
    return jnp.asarray(table.embedding).at[tokens].get(out_sharding=PartitionSpec(*sharding.spec, None))


class Dropout(nn.Module):
    """`flax.linen.Dropout`: each entry is set to 0 with probability `rate`; the others are divided by 1 − rate.

    Srivastava et al. 2014.

    Attributes:
      rate: the probability, in [0, 1). A scalar array is not checked; with it, one program serves several rates.
      deterministic: True returns the input unchanged; otherwise the rng named "dropout" is needed. A traced flag decides in
        the running program.
    """

    rate: float | Array
    deterministic: Flag

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """An array of any shape to one of the same shape and dtype."""
        x = jnp.asarray(x)  # NumPy would divide bfloat16 in float32
        traced = isinstance(self.deterministic, jax.Array)
        given = isinstance(self.rate, jax.Array)
        if (not given and self.rate == 0) or (not traced and self.deterministic):
            return x
        if traced and not (self.has_rng("dropout") or self.has_rng("params")):
            raise ValueError("deterministic is traced: without the rng named 'dropout' it must be static, such as a field")
        probability = 1 - (self.rate if given else float(self.rate))  # a number of NumPy would change the dtype of x
        keep = bernoulli(self.make_rng("dropout"), probability, x.shape)
        # XLA multiplies by the inverse of a constant: the same here, for the same bits.
        scaled = (x * (1 / probability)).astype(x.dtype) if given else x / probability
        kept = jnp.where(keep, scaled, jnp.zeros((), x.dtype))
        return jnp.where(self.deterministic, x, kept) if traced else kept
