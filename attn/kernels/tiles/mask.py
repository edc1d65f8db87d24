"""Which queries of a tile may attend to which of its keys. True means: may attend."""

from attn.kernels.inputs import Inputs
from attn.kernels.masking import combine_masks
from attn.kernels.tiles.indices import TileIndices, evaluate_mod
from attn.mask_mods import in_window
from attn.shapes import Allowed, Array


def tile_mask(inputs: Inputs, tile: Inputs, indices: TileIndices) -> Allowed | None:
    """All masks of a tile combined, or None where every query of it may attend to every key.

    `tile` holds the slices of `inputs` that belong to the tile.
    """
    masks = [tile.mask]
    if tile.query_lengths is not None:
        masks.append(_by_query(indices.query[None] < tile.query_lengths[:, None]))
    if tile.key_lengths is not None:
        masks.append(_by_key(indices.key[None] < tile.key_lengths[:, None]))
    if inputs.unpadded is not None and inputs.has_padded_keys:
        masks.append(_by_key(indices.key[None] < inputs.unpadded[1]))
    if tile.query_segments is not None and tile.key_segments is not None:
        masks.append(_by_query(tile.query_segments) == _by_key(tile.key_segments))
    if inputs.has_band:
        masks.append(in_window(_by_key(indices.key_position) - _by_query(indices.query_position), inputs.window))
    if inputs.mask_mod is not None:
        masks.append(evaluate_mod(inputs.mask_mod, inputs.mask_mod_captured, indices))
    return combine_masks(*masks)


def _by_query(array: Array) -> Array:
    """`[B, T]` as `[B, 1, 1, T, 1]`."""
    return array[:, None, None, :, None]


def _by_key(array: Array) -> Array:
    """`[B, S]` as `[B, 1, 1, 1, S]`."""
    return array[:, None, None, None, :]
