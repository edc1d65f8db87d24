"""The logits of one tile: score · scale → score_mod → + bias → mask. All kernels but `fused` use these functions."""

import jax
import jax.numpy as jnp

from attn.kernels.inputs import Inputs
from attn.kernels.masking import FILL
from attn.kernels.tiles.indices import TileIndices, evaluate_mod
from attn.kernels.tiles.products import MaskedNonfinite, contract
from attn.shapes import Allowed, Array, Tile


def tile_logits(tile: Inputs, indices: TileIndices, allowed: Allowed | None, masked_nonfinite: MaskedNonfinite) -> Tile:
    """The input of the normaliser: −inf where masked."""
    return mask_logits(modify_scores(tile, indices, tile_scores(tile, allowed, masked_nonfinite), allowed), allowed)


def tile_scores(tile: Inputs, allowed: Allowed | None, masked_nonfinite: MaskedNonfinite) -> Tile:
    """score · scale of every query and key of the tile."""
    if tile.score is None:
        return contract("bkrts", "bkrtc", tile.query, "bksc", tile.key, allowed, masked_nonfinite)
    program, captured = tile.score, tile.score_captured

    def score(query: Array, key: Array, *may_attend: Array) -> Array:
        if may_attend:  # 0 · f'(NaN) would be NaN in the gradients
            query, key = (jnp.where(may_attend[0] | jnp.isfinite(x), x, FILL) for x in (query, key))
        return program(captured, query, key)

    may_attend = () if allowed is None else (jnp.broadcast_to(allowed, (*tile.query.shape[:4], tile.key.shape[2])),)
    for axes in ((None, 0), (0, None), (0, None), (0, 0), (0, 0)):  # over s, t, r, k, b
        score = jax.vmap(score, in_axes=(*axes, *(0 for _ in may_attend)))
    result = score(tile.query, tile.key, *may_attend).astype(tile.dtype)
    return result if tile.score_scale is None else result * tile.score_scale.astype(tile.dtype)


def modify_scores(tile: Inputs, indices: TileIndices, scores: Tile, allowed: Allowed | None) -> Tile:
    """The scores after score_mod, plus the bias."""
    if tile.score_mod is not None:
        scores = scores if allowed is None else jnp.where(allowed, scores, 0)  # a masked score may be NaN
        scores = evaluate_mod(tile.score_mod, tile.score_mod_captured, indices, scores).astype(scores.dtype)
    return scores if tile.bias is None else scores + tile.bias


def mask_logits(logits: Tile, allowed: Allowed | None) -> Tile:
    return logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)
