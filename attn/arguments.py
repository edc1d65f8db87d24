"""What the kernels get: the arguments of `attend`, checked, in one layout, arrays apart from what is static."""

import dataclasses

import jax
import jax.numpy as jnp

from attn.shapes import Array
from attn.traced import Program

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """A pytree. The batch is one axis B; query heads are K × R, so that head n reads key and value head n // R.

    Sizes written B|1 are full, or 1 for all. Query and key are already the features of the score, and scaled.
    """

    query: Array  # [B, K, R, T, H]
    key: Array  # [B, K, S, H]
    value: Array  # [B, K, S, V]
    bias: Array | None = None  # [B|1, K|1, R|1, T|1, S|1]
    mask: Array | None = None  # the same, bool
    query_lengths: Array | None = None  # [B]
    key_lengths: Array | None = None  # [B]
    query_segments: Array | None = None  # [B|1, T]
    key_segments: Array | None = None  # [B|1, S]
    query_positions: Array | None = None  # [B|1, T]
    key_positions: Array | None = None  # [B|1, S]
    sink: Array | None = None  # [K, R]
    rng: Array | None = None  # [2] uint32, None without dropout
    index_offset: Array | None = None  # [2] int32: of batch and head, for dropout
    score_captured: tuple[Array, ...] = ()
    score_scale: Array | None = None  # of a pairwise score: the features have theirs already
    score_mod_captured: tuple[Array, ...] = ()
    mask_mod_captured: tuple[Array, ...] = ()

    score: Program | None = dataclasses.field(
        default=None, metadata=_STATIC
    )  # of one query and one key vector; None is their inner product
    score_mod: Program | None = dataclasses.field(default=None, metadata=_STATIC)
    mask_mod: Program | None = dataclasses.field(default=None, metadata=_STATIC)
    # Inclusive, None is open; causality is a right side of 0.
    window: tuple[int | None, int | None] = dataclasses.field(default=(None, None), metadata=_STATIC)
    query_offset: int = dataclasses.field(default=0, metadata=_STATIC)  # position of query 0, where no positions are given
    normalizer: str = dataclasses.field(default="softmax", metadata=_STATIC)
    dropout_rate: float = dataclasses.field(default=0.0, metadata=_STATIC)
    # T and S before padding of ours
    unpadded: tuple[int, int] | None = dataclasses.field(default=None, metadata=_STATIC)

    @property
    def dtype(self) -> jnp.dtype:
        """In which everything is computed: at least float32."""
        return jnp.result_type(self.query, self.key, self.value, jnp.float32)

    @property
    def positioned(self) -> bool:
        """Whether positions are given; else they are the indices."""
        return self.query_positions is not None or self.key_positions is not None

    @property
    def banded(self) -> bool:
        """Whether positions decide who may attend."""
        return self.window != (None, None)

    @property
    def keys_are_padded(self) -> bool:
        return self.unpadded is not None and self.unpadded[1] != self.key.shape[2]

    @property
    def masks_by_array(self) -> bool:
        """Whether what is masked is known only when the program runs."""
        positions = self.banded and self.positioned
        arrays = (self.mask, self.query_lengths, self.key_lengths, self.query_segments)
        return positions or self.mask_mod is not None or any(array is not None for array in arrays)

    @property
    def masks_whole_keys(self) -> bool:
        """Whether `mask` is the same for all queries of a key's head."""
        return self.mask is not None and self.mask.shape[2:4] == (1, 1)

    @property
    def masks_pairs(self) -> bool:
        """Whether a key may be masked for some queries alone. What is masked for all of them, `attn.hidden` cleans."""
        whole_keys = dataclasses.replace(self, mask=None if self.masks_whole_keys else self.mask, key_lengths=None)
        return whole_keys.masked

    @property
    def masked(self) -> bool:
        return self.masks_by_array or self.banded or self.keys_are_padded
