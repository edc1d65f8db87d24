"""What every kernel receives: the validated arguments of `attn.attend` in one layout, arrays apart from static values."""

import dataclasses

import jax
import jax.numpy as jnp

from attn._dtypes import at_least_float32
from attn.kernels.closures import Program
from attn.shapes import Array

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """A pytree of arrays and static fields.

    The batch axes are flattened into one axis B. The query heads are split into K × R, so that query head n reads key and
    value head n // R. An axis written B|1 has its full size, or size 1 where all entries share one value. For a score that is
    an inner product, the query and the key already hold its features, and the query is already scaled.
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
    rng: Array | None = None  # [2] uint32; None without dropout
    index_offset: Array | None = None  # [2] int32: batch and head index of the first row, for dropout
    score_captured: tuple[Array, ...] = ()
    score_scale: Array | None = None  # of a pairwise score; the features of other scores are scaled already
    score_mod_captured: tuple[Array, ...] = ()
    mask_mod_captured: tuple[Array, ...] = ()

    # A score of one query vector and one key vector; None means their inner product.
    score: Program | None = dataclasses.field(default=None, metadata=_STATIC)
    score_mod: Program | None = dataclasses.field(default=None, metadata=_STATIC)
    mask_mod: Program | None = dataclasses.field(default=None, metadata=_STATIC)
    # (left, right), inclusive; None is unlimited. Causal attention has right = 0.
    window: tuple[int | None, int | None] = dataclasses.field(default=(None, None), metadata=_STATIC)
    query_offset: int = dataclasses.field(default=0, metadata=_STATIC)  # position of query 0 where no positions are given
    normalizer: str = dataclasses.field(default="softmax", metadata=_STATIC)
    dropout_rate: float = dataclasses.field(default=0.0, metadata=_STATIC)
    devices: int = dataclasses.field(default=1, metadata=_STATIC)  # over how many the compiler may shard the arrays
    # T and S before `tiles.slices.pad_to_blocks`; None where nothing was padded.
    unpadded: tuple[int, int] | None = dataclasses.field(default=None, metadata=_STATIC)

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the computation: at least float32."""
        return at_least_float32(self.query.dtype, self.key.dtype, self.value.dtype)

    @property
    def has_positions(self) -> bool:
        """Whether the caller gave positions; otherwise positions are indices."""
        return self.query_positions is not None or self.key_positions is not None

    @property
    def has_band(self) -> bool:
        """Whether causality or a window masks by position."""
        return self.window != (None, None)

    @property
    def has_padded_keys(self) -> bool:
        return self.unpadded is not None and self.unpadded[1] != self.key.shape[2]

    @property
    def has_runtime_mask(self) -> bool:
        """Whether some of the mask is known only when the program runs."""
        arrays = (self.mask, self.query_lengths, self.key_lengths, self.query_segments)
        return (self.has_band and self.has_positions) or self.mask_mod is not None or any(x is not None for x in arrays)

    @property
    def has_key_mask(self) -> bool:
        """Whether `mask` is the same for all queries of a key's head."""
        return self.mask is not None and self.mask.shape[2:4] == (1, 1)

    @property
    def has_pairwise_mask(self) -> bool:
        """Whether a key may be masked for some queries and not for others.

        Keys that are masked for all queries do not count: `masking.clean_masked_keys` has removed their NaN and Inf.
        """
        pairwise = dataclasses.replace(self, mask=None if self.has_key_mask else self.mask, key_lengths=None)
        return pairwise.has_mask

    @property
    def has_mask(self) -> bool:
        return self.has_runtime_mask or self.has_band or self.has_padded_keys
