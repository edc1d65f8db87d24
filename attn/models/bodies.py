"""The bodies without attention: convolution and recurrence.

They are compared with self-attention in "Attention Is All You Need" (Vaswani et al. 2017, section 4, table 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike

from attn.kernels.manual_axes import match_varying
from attn.layers.dense import cast, promote_product, promoting
from attn.layers.initializers import glorot_uniform
from attn.shapes import Array, Valid

CELLS = ("gru", "lstm")


class Convolution(nn.Module):
    """relu(W ∗ x + b): each output position reads the `kernel_size` inputs around it. Zeros are beyond the ends of the text.

    `flax.linen.Conv` with padding "SAME" (Kim 2014, section 2).

    Attributes:
      features: the channels F of the output.
      kernel_size: the number of inputs k that an output reads. An even one reads one more after its place than before it.
      dtype: the dtype of activations and products; None promotes input and parameters.
    """

    features: int
    kernel_size: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, valid: Valid | None = None) -> Array:
        """Applies the layer.

        Args:
          x: `[*B, T, D]`.
          valid: bool `[*B, T]`; False is padding, which is read as zeros, as if the text ended there. None means all True.

        Returns:
          `[*B, T, F]`. What is at padding has no meaning.
        """
        if valid is not None:
            x = jnp.where(valid[..., None], x, jnp.zeros((), x.dtype))
        convolution = nn.Conv(
            self.features,
            (self.kernel_size,),
            kernel_init=glorot_uniform(),
            dtype=self.dtype,
            promote_dtype=promote_product,
            conv_general_dilated=_one_product,
            name="convolution",
        )
        return cast(self.dtype, nn.relu(promoting(convolution, x)))[0]


def _one_product(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    """The convolution of `[B, T, D]` with `[k, D, F]`, stride 1 and padding "SAME", as a product of its windows, `[B, T, k D]`.

    On a CPU, XLA's own convolution takes about 60 times as long inside of a loop, such as that over microbatches.
    """
    size, length = kernel.shape[0], x.shape[1]
    before = (size - 1) // 2
    padded = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (before, size - 1 - before, 0), (0, 0, 0)))
    windows = jnp.concatenate([padded[:, start : start + length] for start in range(size)], axis=-1)
    return windows @ kernel.reshape(-1, kernel.shape[-1])


class Recurrence(nn.Module):
    """A recurrent layer that reads from the first position to the last: `flax.linen.RNN` with one of its cells.

    Attributes:
      features: the size F of the state.
      cell: "gru" (Cho et al. 2014; `flax.linen.GRUCell`) or "lstm" (Hochreiter & Schmidhuber 1997;
        `flax.linen.OptimizedLSTMCell`, which has the parameters of `LSTMCell`).
      dtype: the dtype of the products; None promotes input and parameters. The state is at least float32.
    """

    features: int
    cell: str
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Array, valid: Valid | None = None) -> Array:
        """Applies the layer.

        Args:
          x: `[*B, T, D]`.
          valid: bool `[*B, T]`; False is padding, over which the state is carried unchanged, wherever in the text it is.

        Returns:
          The states `[*B, T, F]`. What is at padding has no meaning.
        """
        kind = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[self.cell]
        cell: nn.RNNCellBase = kind(self.features, dtype=self.dtype, name="cell")
        if valid is not None:
            x = jnp.concatenate([x, valid[..., None].astype(x.dtype)], axis=-1)
            cell = _Skipping(cell)
        start = cell.initialize_carry(jax.random.key(0), (*x.shape[:-2], x.shape[-1]))
        run = nn.RNN(cell)
        return cast(self.dtype, promoting(lambda x, start: run(x, initial_carry=start), x, match_varying(start, x)))[0]


class _Skipping(nn.RNNCellBase):
    """A cell whose last input channel is 1 for a token, and 0 where the state stays as it is."""

    cell: nn.RNNCellBase

    @nn.compact
    def __call__(self, carry: Any, inputs: Array) -> tuple[Any, Array]:
        after, output = self.cell(carry, inputs[..., :-1])
        reads = inputs[..., -1:] > 0
        return jax.tree.map(lambda new, old: jnp.where(reads, new, old), after, carry), output

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> Any:
        return self.cell.initialize_carry(rng, (*input_shape[:-1], input_shape[-1] - 1))

    @property
    def num_feature_axes(self) -> int:
        return 1
