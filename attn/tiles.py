"""One tile: the logits of some queries and some keys. Every implementation is made of it, so all of them mean the same.

score · scale → score_mod → + bias → masks
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from attn.arguments import Arguments
from attn.dropout import keep
from attn.hidden import FILL
from attn.places import Where, at_places
from attn.shapes import Allowed, Array, Tile


def scores(tile: Arguments, allowed: Allowed | None, careful: Array | None) -> Tile:
    """score · scale of every query and key of the tile."""
    if tile.score is None:
        return contract("bkrts", "bkrtc", tile.query, "bksc", tile.key, allowed, careful)
    program, captured = tile.score, tile.score_captured

    def score(query: Array, key: Array, *may: Array) -> Array:
        if may:  # 0 · f'(NaN) would be NaN in the gradients
            query, key = (jnp.where(may[0] | jnp.isfinite(x), x, FILL) for x in (query, key))
        return program(captured, query, key)

    may = () if allowed is None else (jnp.broadcast_to(allowed, (*tile.query.shape[:4], tile.key.shape[2])),)
    for axes in ((None, 0), (0, None), (0, None), (0, 0), (0, 0)):  # over s, t, r, k, b
        score = jax.vmap(score, in_axes=(*axes, *(0 for _ in may)))
    result = score(tile.query, tile.key, *may).astype(tile.dtype)
    return result if tile.score_scale is None else result * tile.score_scale.astype(tile.dtype)


def modify(tile: Arguments, where: Where, scores: Tile, allowed: Allowed | None) -> Tile:
    """score_mod, then the bias."""
    if tile.score_mod is not None:
        scores = scores if allowed is None else jnp.where(allowed, scores, 0)  # what is masked may be NaN, and its slope too
        scores = at_places(tile.score_mod, tile.score_mod_captured, where, scores).astype(scores.dtype)
    return scores if tile.bias is None else scores + tile.bias


def mask(logits: Tile, allowed: Allowed | None) -> Tile:
    return logits if allowed is None else jnp.where(allowed, logits, -jnp.inf)


def logits(tile: Arguments, where: Where, allowed: Allowed | None, careful: Array | None) -> Tile:
    """What the normaliser gets: −inf where masked."""
    return mask(modify(tile, where, scores(tile, allowed, careful), allowed), allowed)


def kept(tile: Arguments, where: Where) -> Array | None:
    """Inverted dropout as a factor: 1 / (1 − rate) for a weight that stays, else 0. None without dropout."""
    if tile.rng is None or tile.index_offset is None:
        return None
    batch, head = where.batch + tile.index_offset[0], where.head + tile.index_offset[1]
    places = batch[:, None, None, None, None], head[None, :, :, None, None], where.query[:, None], where.key
    return jnp.where(keep(tile.rng, tile.dropout_rate, *places), jnp.asarray(1 / (1 - tile.dropout_rate), tile.dtype), 0)


def drop(tile: Arguments, where: Where, weights: Tile) -> Tile:
    factor = kept(tile, where)
    return weights if factor is None else weights * factor


def contract(out: str, left_axes: str, left: Array, right_axes: str, right: Array, allowed: Allowed | None, careful) -> Array:
    """einsum(left, right) to the axes `out`, over the pairs of query and key that are allowed.

    An array `[.., t, s]` is 0 at the other pairs, but 0 · NaN is NaN: where `careful` is true the product is made pair by pair.
    """

    def plain(left: Array, right: Array) -> Array:
        return jnp.einsum(f"{left_axes},{right_axes}->{out}", left, right)

    if allowed is None or careful is None:
        return plain(left, right)

    @jax.checkpoint
    def by_pair(left: Array, right: Array) -> Array:
        factors = (_expand(left, left_axes), _expand(right, right_axes))
        # The factors, not the product: its gradient would hold 0 · NaN.
        left, right = (jnp.where(allowed[..., None], factor, 0) for factor in factors)
        return jnp.einsum(f"bkrtsc->{out}", left * right)

    return lax.cond(careful, by_pair, plain, left, right)


def careful(arguments: Arguments, *more: Array) -> Array | None:
    """Whether products must be taken pair by pair: some pairs are masked, and something is NaN or Inf. None: never."""
    if not arguments.masks_pairs:
        return None
    arrays = (arguments.query, arguments.key, arguments.value, *more)
    return any_nonfinite([lax.stop_gradient(array) for array in arrays])


@jax.custom_batching.custom_vmap
def any_nonfinite(arrays: Sequence[Array]) -> Array:
    """Whether anything is NaN or Inf. One answer for all of a batch, under `vmap` too, so that `lax.cond` stays a branch."""
    return jnp.any(jnp.stack([~jnp.all(jnp.isfinite(array)) for array in arrays]))


@any_nonfinite.def_vmap
def _(axis_size: int, batched: Sequence[bool], arrays: Sequence[Array]) -> tuple[Array, bool]:
    del axis_size, batched
    return any_nonfinite(arrays), False


def _expand(array: Array, axes: str) -> Array:
    """The array with size 1 for each missing axis of "bkrtsc"."""
    order = sorted(range(len(axes)), key=lambda i: "bkrtsc".index(axes[i]))
    missing = [i for i, axis in enumerate("bkrtsc") if axis not in axes]
    return jnp.expand_dims(jnp.transpose(array, order), missing)
