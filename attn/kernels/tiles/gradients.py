"""The backward pass of one tile, and the sums over tiles: what `jax.vjp` computes, with products that suit a CPU."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from attn._dtypes import at_least_float32
from attn.kernels.inputs import Inputs
from attn.kernels.tiles.indices import TileIndices
from attn.kernels.tiles.logits import modify_scores, tile_scores
from attn.kernels.tiles.products import MaskedNonfinite, contract
from attn.shapes import Allowed, Array, Tile


class Gradients(NamedTuple):
    """Gradients of the differentiable fields of `Inputs` except the sink; of captured arrays only those of the inexact ones."""

    query: Array
    key: Array
    value: Array
    bias: Array | None
    score_captured: tuple[Array, ...]
    score_scale: Array | None
    score_mod_captured: tuple[Array, ...]


GRADIENT_AXES = ("bkrt", "bks", "bks", "bkrts", "", "", "")  # the leading axes of each field, as in `slice_array`


def zero_gradients(inputs: Inputs) -> Gradients:
    """Zeros of the shapes of the inputs, in the dtype of the computation."""
    fields = (getattr(inputs, name) for name in Gradients._fields)
    inexact = (_inexact(field) if isinstance(field, tuple) else field for field in fields)
    dtype = inputs.dtype  # or more, where an array has more
    return Gradients(*jax.tree.map(lambda array: jnp.zeros(array.shape, at_least_float32(array.dtype, dtype)), tuple(inexact)))


def as_cotangent(inputs: Inputs, sums: Gradients, sink: Array | None) -> Inputs:
    """The gradients in the form that `jax.custom_vjp` expects: one for every array of the inputs, in its dtype."""

    def zero(array: Array) -> Any:
        return jnp.zeros_like(array) if jnp.issubdtype(array.dtype, jnp.inexact) else None

    def like(array: Any, gradient: Any) -> Any:
        if not isinstance(array, tuple):
            return None if array is None else gradient.astype(array.dtype)
        found = iter(gradient)
        return tuple(next(found).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else zero(x) for x in array)

    gradients = {name: like(getattr(inputs, name), gradient) for name, gradient in sums._asdict().items()}
    return dataclasses.replace(jax.tree.map(zero, inputs), **gradients, sink=like(inputs.sink, sink))


def logits_vjp(tile: Inputs, indices: TileIndices, allowed: Allowed | None, masked_nonfinite: MaskedNonfinite):
    """The logits before masking, and the function from their gradient to those of the inputs.

    The function returns the gradients of query, key, bias, what the score captured, the scale, and what score_mod captured.
    """
    scores, pull_scores = _scores_vjp(tile, allowed, masked_nonfinite)
    logits, pull_logits = _modify_vjp(tile, indices, scores, allowed)

    def pull(gradient: Tile) -> tuple:
        gradient, bias, score_mod = pull_logits(gradient)
        gradient = gradient if allowed is None else jnp.where(allowed, gradient, 0)
        query, key, score, scale = pull_scores(gradient)
        return query, key, bias, score, scale, score_mod

    return logits, pull


def sum_over_queries(weights: Tile, rows: Array, allowed: Allowed | None, masked_nonfinite: MaskedNonfinite) -> Array:
    """Σ_rt weights[r, t, s] · rows[r, t, c] as `[B, K, S, C]`, without transposing the weights.

    XLA's CPU backend runs (weightsᵀ · rows) at a quarter of the speed of a plain product (15 against 65 GFLOP/s on one AVX2
    core, T = S = 256, H = 16), and without the barrier it folds (rowsᵀ · weights)ᵀ back into that form. With the barrier,
    jaxlib 0.10.2 aborts where T, S and H are all below 8 ("Check failed: LayoutUtil::IsMonotonicWithDim0Major"); there the
    other order of the product would gain nothing.
    """
    if any(map(is_symbolic_dim, weights.shape)) or max(weights.shape[-2:]) < 16:
        return contract("bksc", "bkrts", weights, "bkrtc", rows, allowed, masked_nonfinite)
    columns = contract("bkcs", "bkrtc", rows, "bkrts", weights, allowed, masked_nonfinite)
    return jnp.swapaxes(lax.optimization_barrier(columns), -1, -2)


def sum_channels(rows: Array) -> Array:
    """Σ_c rows[.., c] as a product, which XLA's CPU backend computes in a third of the time of a sum over 16 neighbours."""
    return jnp.einsum("...c,c->...", rows, jnp.ones(rows.shape[-1], rows.dtype), precision=lax.Precision.HIGHEST)


def _scores_vjp(
    tile: Inputs, allowed: Allowed | None, masked_nonfinite: MaskedNonfinite
) -> tuple[Tile, Callable[[Tile], tuple]]:
    """The scores, and the function from their gradient to those of query, key, the score's captured arrays and the scale."""
    if tile.score is None:

        def pull(gradient: Tile) -> tuple:
            query = contract("bkrtc", "bkrts", gradient, "bksc", tile.key, allowed, masked_nonfinite)
            return query, sum_over_queries(gradient, tile.query, allowed, masked_nonfinite), (), None

        return tile_scores(tile, None, None), pull

    def scores(query: Array, key: Array, captured: tuple[Array, ...], scale: Array | None) -> Tile:
        changed = dataclasses.replace(
            tile, query=query, key=key, score_scale=scale, score_captured=_replace_inexact(tile.score_captured, captured)
        )
        return tile_scores(changed, allowed, masked_nonfinite)

    return jax.vjp(scores, tile.query, tile.key, _inexact(tile.score_captured), tile.score_scale)


def _modify_vjp(
    tile: Inputs, indices: TileIndices, scores: Tile, allowed: Allowed | None
) -> tuple[Tile, Callable[[Tile], tuple]]:
    """The logits, and the function from their gradient to those of the scores, the bias and score_mod's captured arrays."""

    def modify(scores: Tile, bias: Array | None, captured: tuple[Array, ...]) -> Tile:
        replaced = _replace_inexact(tile.score_mod_captured, captured)
        return modify_scores(dataclasses.replace(tile, bias=bias, score_mod_captured=replaced), indices, scores, allowed)

    return jax.vjp(modify, scores, tile.bias, _inexact(tile.score_mod_captured))


def _inexact(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(array for array in arrays if jnp.issubdtype(array.dtype, jnp.inexact))


def _replace_inexact(arrays: tuple[Array, ...], replacements: tuple[Array, ...]) -> tuple[Array, ...]:
    found = iter(replacements)
    return tuple(next(found) if jnp.issubdtype(array.dtype, jnp.inexact) else array for array in arrays)
