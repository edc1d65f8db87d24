"""The definition tile by tile: linear memory forward and backward, the same numbers to rounding.

Forward is the online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1). Backward makes the weights of a
tile again, from the maximum and the sum of each row. Not from their log-sum-exp, as others do: its rounding grows with the
scores, and where one weight is near 1, what is left of the gradients is that error (at scores of 1,000 they were 43% off).

One loop visits the tiles: those that causality or the window empty are not in its list, those that other masks empty are
skipped when the program runs.

First derivatives in reverse mode, and forward over reverse; `jax.jvp` needs `attn.chunked_autodiff`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from attn import blocks, gradients, masks, parts, tiles
from attn.arguments import Arguments
from attn.blocks import Block, Corner
from attn.online_softmax import Rows, attend_tile, finish, start
from attn.reverse_mode import in_reverse_mode_only
from attn.shapes import Allowed, Array


def refusal(arguments: Arguments) -> str | None:
    """Why these arguments cannot be chunked, or None."""
    if arguments.normalizer in ("softmax", "softmax1", "sigmoid"):
        return None
    return f"does not honour normalizer={arguments.normalizer!r}, which sorts whole rows: only 'dense' does"


def attention(arguments: Arguments, block: Block) -> tuple[Array, Array]:
    """The output `[B, K, R, T, V]` and the log-sum-exp `[B, K, R, T]` of the keys alone, without the sink."""
    queries = arguments.query.shape[3]
    padded = in_reverse_mode_only(parts.pad(arguments, block))
    output, lse = _attention(block, parts.vary(padded, padded))
    return output[..., :queries, :], lse[..., :queries]


def _forward(block: Block, arguments: Arguments):
    careful = tiles.careful(arguments)

    def visit(rows: Rows, corner: Corner) -> Rows:
        tile, where = parts.cut(arguments, corner, block)
        allowed = masks.allowed(arguments, tile, where)
        state = Rows(*(parts.part(x, "bkrt", corner, block) for x in rows))
        state = parts.unless_empty(
            _known_late(arguments, allowed, block), lambda: attend_tile(state, tile, where, allowed, careful), state
        )
        return Rows(*(parts.put(x, "bkrt", corner, update) for x, update in zip(rows, state, strict=True)))

    output, lse, norm = finish(arguments, parts.each_tile(arguments, block, visit, start(arguments)))
    return (output, lse), (arguments, output, norm)


def _backward(block: Block, saved, cotangents):
    arguments, output, norm = saved
    gradient, lse_gradient = cotangents
    empty = norm.of_keys == 0
    gradient = jnp.where(empty[..., None], 0, gradient)
    mean = gradients.sum_channels(gradient * output)
    shift = mean - jnp.where(empty, 0, lse_gradient * norm.total / jnp.where(empty, 1, norm.of_keys))
    # Divided here, a row at a time, so that the exponentials of a tile stand in for its weights.
    gradient, shift = gradient / norm.total[..., None], shift / norm.total
    careful = tiles.careful(arguments, gradient)
    zeros = gradients.zeros(arguments)

    def visit(sums: gradients.Gradients, corner: Corner) -> gradients.Gradients:
        tile, where = parts.cut(arguments, corner, block)
        allowed = masks.allowed(arguments, tile, where)
        rows = [parts.part(x, "bkrt", corner, block) for x in (gradient, norm.highest, shift)]
        update = parts.unless_empty(
            _known_late(arguments, allowed, block), lambda: _tile_gradients(tile, where, allowed, careful, *rows)
        )
        return gradients.add(sums, update, corner, block)

    sums = parts.each_tile(arguments, block, visit, zeros)
    sink = None
    if arguments.sink is not None:
        sink = -jnp.sum(jnp.exp(arguments.sink[:, :, None] - norm.highest) / norm.total * mean, axis=(0, 3))
    return (gradients.cotangent(arguments, sums, sink),)


def _tile_gradients(tile: Arguments, where, allowed, careful, gradient: Array, highest: Array, shift: Array):
    logits, pull = gradients.logits_vjp(tile, where, allowed, careful)
    kept = tiles.kept(tile, where)
    weight_gradient = tiles.contract("bkrts", "bkrtc", gradient, "bksc", tile.value, None, None)
    weight_gradient = weight_gradient if kept is None else weight_gradient * kept
    if tile.normalizer == "sigmoid":
        weights = jax.nn.sigmoid(logits)
        logit_gradient = weights * (1 - weights) * weight_gradient
    else:
        weights = jnp.exp(logits - highest[..., None])
        logit_gradient = weights * (weight_gradient - shift[..., None])
    if allowed is not None:
        weights, logit_gradient = (jnp.where(allowed, x, 0) for x in (weights, logit_gradient))
    weights = weights if kept is None else weights * kept
    value = gradients.by_key(weights, gradient, allowed, careful)
    query, key, *rest = pull(logit_gradient)
    return gradients.Gradients(query, key, value, *rest)


_attention: Callable[[Block, Arguments], tuple[Array, Array]]
_attention = jax.custom_vjp(lambda block, arguments: _forward(block, arguments)[0], nondiff_argnums=(0,))
_attention.defvjp(_forward, _backward)


def _known_late(arguments: Arguments, allowed: Allowed | None, block: Block) -> Allowed | None:
    """The mask, where it may empty one of several tiles: what positions alone empty is not in the list of tiles."""
    return allowed if arguments.masks_by_array and block != blocks.whole(arguments) else None
