"""Attention between two sequences: query, key and value are each drawn from one of them.

With query, key and value from one sequence it is self-attention. With the query from one, and key and value from the other, it
is cross-attention (Vaswani et al. 2017, section 3.2.3).
"""

from typing import Literal, get_args

from flax import linen as nn

from attn.kernels.selection import Implementation
from attn.layers.keras import MultiHeadAttention
from attn.shapes import Array, Valid

Source = Literal["first", "second"]


class TwoSequenceAttention(nn.Module):
    """Multi-head attention whose query, key and value come from any of two sequences.

    The weights say how much each position of the key's sequence counts, and the sum is over the positions of the value's. So if
    key and value come from different sequences, position s of one must belong to position s of the other, as a frame of sound
    belongs to a frame of video, and the two must be equally long. With key and value from the same sequence, the lengths are
    free.

    Attributes:
      num_heads: the number of heads.
      key_dim: the channels of each head.
      query, key, value: "first" or "second".
      output_dim: the size of an output vector; None means that of the query's sequence.
      implementation: as in `attn.attend`.

    Raises:
      ValueError: a size that is not positive, or an unknown name.
    """

    num_heads: int
    key_dim: int
    query: Source
    key: Source
    value: Source
    output_dim: int | None = None
    implementation: Implementation = "auto"

    def __post_init__(self) -> None:
        for name in ("query", "key", "value"):
            if getattr(self, name) not in get_args(Source):
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {', '.join(get_args(Source))}")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, first: Array, second: Array, first_valid: Valid | None = None, second_valid: Valid | None = None
    ) -> Array:
        """Applies the layer.

        Args:
          first: `[*B, T₁, D₁]`.
          second: `[*B, T₂, D₂]`.
          first_valid, second_valid: bool `[*B, T₁]` and `[*B, T₂]`; True is a token, False is padding. None means all True. A
            position counts where it is valid in the key's sequence and in the value's.

        Returns:
          `[*B, T, output_dim]`, with the length T of the query's sequence.

        Raises:
          ValueError: key and value come from sequences that are not equally long.
        """
        sequences = {"first": first, "second": second}
        valid = {"first": first_valid, "second": second_valid}
        query, key, value = sequences[self.query], sequences[self.key], sequences[self.value]
        if key.shape[-2] != value.shape[-2]:
            raise ValueError(
                f"key={self.key!r} has length {key.shape[-2]} and value={self.value!r} has length {value.shape[-2]}: "
                "a weight belongs to a key and to its value, so the two must be equally long"
            )
        attention = MultiHeadAttention(
            self.num_heads,
            self.key_dim,
            output_shape=self.output_dim,
            attention_axes=-2,
            implementation=self.implementation,
            name="attention",
        )
        return attention(query, value, key, value_mask=valid[self.value], key_mask=valid[self.key])
