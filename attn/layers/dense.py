"""linen's `Dense` and `Dropout`: the same parameters and numbers, in a form that XLA's CPU backend runs far faster."""

import jax.numpy as jnp
from flax import linen as nn

from attn.dropout import bernoulli
from attn.shapes import Array


class Dense(nn.Module):
    """`flax.linen.Dense`: x kernel + bias.

    The kernel has an axis of size 1 in the middle. Without it XLA writes the kernel's gradient as a product of two transposed
    arrays, which its CPU backend makes at a tenth of a core's speed.
    """

    features: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[.., D]` to `[.., features]`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        return jnp.einsum("...a,abc->...bc", x, kernel[:, None])[..., 0, :] + bias


class Dropout(nn.Module):
    """`flax.linen.Dropout`: a share `rate` of the numbers becomes 0, the others are divided by 1 − rate."""

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Of the same shape and dtype; the rng named "dropout" is needed unless `deterministic`."""
        if self.deterministic or self.rate == 0:
            return x
        keep = bernoulli(self.make_rng("dropout"), 1 - self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), jnp.zeros((), x.dtype))
