"""The backward pass of one tile, and the sums of all of them. What `jax.vjp` would do, where a CPU likes other products."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from attn import parts, tiles
from attn.arguments import Arguments
from attn.blocks import Block, Corner
from attn.places import Where
from attn.shapes import Allowed, Array, Tile


class Gradients(NamedTuple):
    """Of what is differentiated in `Arguments`, but the sink; of the captured arrays only the inexact ones."""

    query: Array
    key: Array
    value: Array
    bias: Array | None
    score_captured: tuple[Array, ...]
    score_scale: Array | None
    score_mod_captured: tuple[Array, ...]


def inexact(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(array for array in arrays if jnp.issubdtype(array.dtype, jnp.inexact))


def zeros(arguments: Arguments) -> Gradients:
    """Of the arguments, in the dtype of the computation."""
    fields = (getattr(arguments, name) for name in Gradients._fields)
    kept = (inexact(field) if isinstance(field, tuple) else field for field in fields)
    return Gradients(
        *jax.tree.map(lambda array: jnp.zeros(array.shape, jnp.promote_types(array.dtype, jnp.float32)), tuple(kept))
    )


def add(sums: Gradients, tile: Gradients, corner: Corner, block: Block) -> Gradients:
    """The sums with a tile's gradients added where the tile is."""

    def at(axes: str, total: Array, update: Array) -> Array:
        return parts.put(total, axes, corner, parts.part(total, axes, corner, block) + update)

    return Gradients(
        at("bkrt", sums.query, tile.query),
        at("bks", sums.key, tile.key),
        at("bks", sums.value, tile.value),
        None if sums.bias is None or tile.bias is None else at("bkrts", sums.bias, tile.bias),
        *jax.tree.map(jnp.add, sums[4:], tile[4:]),
    )


def cotangent(arguments: Arguments, sums: Gradients, sink: Array | None) -> Arguments:
    """The gradients as `jax.custom_vjp` wants them: of every array, in its dtype."""

    def zero(array: Array) -> Any:
        return jnp.zeros_like(array) if jnp.issubdtype(array.dtype, jnp.inexact) else np.zeros(array.shape, jax.dtypes.float0)

    def like(array: Any, gradient: Any) -> Any:
        if not isinstance(array, tuple):
            return None if array is None else gradient.astype(array.dtype)
        found = iter(gradient)
        return tuple(next(found).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else zero(x) for x in array)

    gradients = {name: like(getattr(arguments, name), gradient) for name, gradient in sums._asdict().items()}
    return dataclasses.replace(jax.tree.map(zero, arguments), **gradients, sink=like(arguments.sink, sink))


def scores_vjp(tile: Arguments, allowed: Allowed | None, careful: Array | None) -> tuple[Tile, Callable[[Tile], tuple]]:
    """The scores, and from their gradient those of query, key, and the score's captured arrays and scale."""
    if tile.score is None:

        def pull(gradient: Tile) -> tuple:
            query = tiles.contract("bkrtc", "bkrts", gradient, "bksc", tile.key, allowed, careful)
            return query, by_key(gradient, tile.query, allowed, careful), (), None

        return tiles.scores(tile, None, None), pull

    def scores(query: Array, key: Array, captured: tuple[Array, ...], scale: Array | None) -> Tile:
        changed = dataclasses.replace(
            tile, query=query, key=key, score_scale=scale, score_captured=_merge(tile.score_captured, captured)
        )
        return tiles.scores(changed, allowed, careful)

    return jax.vjp(scores, tile.query, tile.key, inexact(tile.score_captured), tile.score_scale)


def modify_vjp(tile: Arguments, where: Where, scores: Tile, allowed: Allowed | None) -> tuple[Tile, Callable[[Tile], tuple]]:
    """The logits, and from their gradient those of the scores, the bias and the captured arrays of score_mod."""

    def modify(scores: Tile, bias: Array | None, captured: tuple[Array, ...]) -> Tile:
        changed = dataclasses.replace(tile, bias=bias, score_mod_captured=_merge(tile.score_mod_captured, captured))
        return tiles.modify(changed, where, scores, allowed)

    return jax.vjp(modify, scores, tile.bias, inexact(tile.score_mod_captured))


def logits_vjp(tile: Arguments, where: Where, allowed: Allowed | None, careful: Array | None):
    """The logits, and from their gradient those of query, key, bias, score's captured arrays and scale, score_mod's."""
    scores, pull_scores = scores_vjp(tile, allowed, careful)
    logits, pull_logits = modify_vjp(tile, where, scores, allowed)

    def pull(gradient: Tile) -> tuple:
        gradient, bias, score_mod = pull_logits(gradient)
        gradient = gradient if allowed is None else jnp.where(allowed, gradient, 0)
        query, key, score, scale = pull_scores(gradient)
        return query, key, bias, score, scale, score_mod

    return logits, pull


def by_key(weights: Tile, rows: Array, allowed: Allowed | None, careful: Array | None) -> Array:
    """Σ_rt weights[r, t, s] · rows[r, t, c] as `[B, K, S, C]`, without transposing the weights.

    XLA's CPU backend runs (weightsᵀ · rows) at a quarter of the speed of a plain product (15 against 65 GFLOP/s on one AVX2
    core, T = S = 256, H = 16), and folds (rowsᵀ · weights)ᵀ back into it but for the barrier. With the barrier, jaxlib 0.10.2
    aborts where T, S and H are all below 8 ("Check failed: LayoutUtil::IsMonotonicWithDim0Major"); there it gains nothing.
    """
    if max(weights.shape[-2:]) < 16:
        return tiles.contract("bksc", "bkrts", weights, "bkrtc", rows, allowed, careful)
    columns = tiles.contract("bkcs", "bkrtc", rows, "bkrts", weights, allowed, careful)
    return jnp.swapaxes(lax.optimization_barrier(columns), -1, -2)


def sum_channels(rows: Array) -> Array:
    """Σ_c rows[.., c] as a product, which XLA's CPU backend makes in a third of the time of a sum over 16 neighbours."""
    return jnp.einsum("...c,c->...", rows, jnp.ones(rows.shape[-1], rows.dtype), precision=lax.Precision.HIGHEST)


def _merge(arrays: tuple[Array, ...], replaced: tuple[Array, ...]) -> tuple[Array, ...]:
    found = iter(replaced)
    return tuple(next(found) if jnp.issubdtype(array.dtype, jnp.inexact) else array for array in arrays)
