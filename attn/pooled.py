"""Attention averaged over its queries, where one tile holds everything: one row of weights a head meets the values, not T.

Σ_t w_t Σ_s p_ts v_s = Σ_s (Σ_t w_t p_ts) v_s. Backward, every query has the same gradient but for w_t, so what the weights get
is one row too: of the five products of attention's backward pass two are left, and of the forward pass's two, one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from attn import blocks, chunked, gradients, masks, normalizers, parts, tiles
from attn.arguments import Arguments
from attn.blocks import Corner
from attn.reverse_mode import in_reverse_mode_only
from attn.shapes import Array, Tile


def refusal(arguments: Arguments) -> str | None:
    """Why the mean of these must be taken over outputs, or None."""
    if (why := chunked.refusal(arguments)) is not None:
        return why
    if arguments.masks_pairs:
        return "does not honour masks of pairs, which keep NaN to the queries that may attend to it"
    if blocks.choose_block(arguments, None) != blocks.whole(arguments):
        return "needs everything in one tile"
    return None


def attention(arguments: Arguments, query_weights: Array) -> Array:
    """`[B, K, R, V]`, where `query_weights` is `[B, T]`; a query of weight 0 is to be finite."""
    marked = in_reverse_mode_only((arguments, query_weights))
    return _attention(*parts.vary(marked, marked))


def _forward(arguments: Arguments, query_weights: Array):
    tile, where = parts.cut(arguments, Corner(), blocks.whole(arguments))
    powers, norm, _ = _powers(arguments, tiles.logits(tile, where, masks.allowed(arguments, tile, where), None))
    received = jnp.einsum("bkrt,bkrts->bkrs", query_weights[:, None, None] / norm, tiles.drop(tile, where, powers))
    return jnp.einsum("bkrs,bksv->bkrv", received, tile.value), (arguments, query_weights, received)


def _backward(saved, gradient: Array):
    arguments, query_weights, received = saved
    tile, where = parts.cut(arguments, Corner(), blocks.whole(arguments))
    allowed = masks.allowed(arguments, tile, where)
    logits, pull = gradients.logits_vjp(tile, where, allowed, None)
    powers, norm, of_sink = _powers(arguments, tiles.mask(logits, allowed))
    kept = tiles.kept(tile, where)
    if allowed is not None:  # without a key no gradient comes back, be it NaN
        gradient = jnp.where(jnp.any(allowed, axis=(-2, -1))[..., None], gradient, 0)
    of_keys = jnp.einsum("bkrv,bksv->bkrs", gradient, tile.value)  # the gradient of a query's weights, over query_weights
    mean = jnp.einsum("bkrts,bkrs->bkrt", powers if kept is None else powers * kept, of_keys) / norm
    rows, columns = (query_weights[:, None, None] / norm)[..., None], of_keys[..., None, :]
    columns = columns if kept is None else columns * kept
    if arguments.normalizer == "sigmoid":
        logit_gradient = powers * (1 - powers) * rows * columns
    else:
        logit_gradient = powers * (rows * (columns - mean[..., None]))
    query, key, *rest = pull(logit_gradient if allowed is None else jnp.where(allowed, logit_gradient, 0))
    value = jnp.einsum("bkrs,bkrv->bksv", received, gradient)
    sink = None if of_sink is None else -jnp.sum(of_sink / norm * query_weights[:, None, None] * mean, axis=(0, 3))
    found = gradients.Gradients(query, key, value, *rest)
    return gradients.cotangent(arguments, found, sink), jnp.sum(mean, axis=(1, 2)).astype(query_weights.dtype)


_attention: Callable[[Arguments, Array], Array]
_attention = jax.custom_vjp(lambda arguments, query_weights: _forward(arguments, query_weights)[0])
_attention.defvjp(_forward, _backward)


def _powers(arguments: Arguments, logits: Tile) -> tuple[Tile, Array, Array | None]:
    """What is a weight when divided by its row's norm `[B, K, R, T]`; and that of the sink."""
    if arguments.normalizer == "sigmoid":
        weights = jax.nn.sigmoid(logits)
        return weights, jnp.ones_like(weights[..., 0]), None
    sink = None if arguments.sink is None else arguments.sink[:, :, None, None].astype(logits.dtype)
    of_keys, total, of_sink = normalizers.powers(logits, sink)
    return of_keys, total[..., 0], None if of_sink is None else of_sink[..., 0]
