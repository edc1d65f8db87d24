"""linen's `Dense` and `Dropout` with the same parameters and semantics, written so that XLA's CPU backend runs them faster."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from attn.dropout import bernoulli
from attn.layers.flags import Flag
from attn.shapes import Array


class Dense(nn.Module):
    """`flax.linen.Dense`: x kernel + bias.

    In the product the kernel has an additional axis of size 1. Without that axis, XLA computes the kernel's gradient as a
    product of two transposed arrays, for which its CPU backend reaches a tenth of a core's speed.

    Attributes:
      features: the size of the output.
      kernel_init: the initialiser of the kernel `[D, features]`.
      bias_init: the initialiser of the bias `[features]`.
    """

    features: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[.., D]` to `[.., features]`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        return jnp.einsum("...a,abc->...bc", x, kernel[:, None])[..., 0, :] + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class Dropout(nn.Module):
    """`flax.linen.Dropout`: each entry is set to 0 with probability `rate`; the others are divided by 1 − rate.

    Srivastava et al. 2014.

    Attributes:
      rate: the probability, in [0, 1).
      deterministic: True returns the input unchanged; otherwise the rng named "dropout" is needed. A traced flag decides in
        the running program.
    """

    rate: float
    deterministic: Flag

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """An array of any shape to one of the same shape and dtype."""
        traced = isinstance(self.deterministic, jax.Array)
        if self.rate == 0 or (not traced and self.deterministic):
            return x
        keep = bernoulli(self.make_rng("dropout"), 1 - self.rate, x.shape)
        kept = jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))
        return jnp.where(self.deterministic, x, kept) if traced else kept
