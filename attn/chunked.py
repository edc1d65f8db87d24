"""The definition tile by tile: linear memory forward and backward, the same numbers to rounding.

Forward is the online softmax (Milakov and Gimelshein 2018; Dao et al. 2022, algorithm 1). Backward makes the weights of a
tile again, from the maximum and the sum of each row. Not from their log-sum-exp, as others do: its rounding grows with the
scores, and where one weight is near 1, what is left of the gradients is that error (at scores of 1,000 they were 43% off).

One loop visits the tiles: those that causality or the window empty are not in its list, those that other masks empty are
skipped when the program runs.

First derivatives in reverse mode, and forward over reverse; `jax.jvp` needs `attn.chunked_autodiff`.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from attn import gradients, masks, tiles
from attn.arguments import Arguments
from attn.normalizers import finite
from attn.reverse_mode import reverse_mode_only
from attn.shapes import Allowed, Array
from attn.tiles import Block, Corner

T = TypeVar("T")


class Rows(NamedTuple):
    """What the online softmax knows of each row so far."""

    highest: Array  # [B, K, R, T], −inf before the first key
    total: Array  # the same, Σ exp(logit − highest)
    output: Array  # [B, K, R, T, V], Σ exp(logit − highest) · value


class Norm(NamedTuple):
    """What makes a logit a weight: exp(logit − highest) / total. A row without a key has 0 and 1."""

    highest: Array  # [B, K, R, T], of the keys and the sink
    total: Array  # the same, Σ exp(· − highest), of the keys and the sink
    of_keys: Array  # of the keys alone


def refusal(arguments: Arguments) -> str | None:
    """Why these arguments cannot be chunked, or None."""
    if arguments.normalizer in ("softmax", "softmax1", "sigmoid"):
        return None
    return f"does not honour normalizer={arguments.normalizer!r}, which sorts whole rows: only 'dense' does"


def attention(arguments: Arguments, block: Block) -> tuple[Array, Array]:
    """The output `[B, K, R, T, V]` and the log-sum-exp `[B, K, R, T]` of the keys alone, without the sink."""
    queries = arguments.query.shape[3]
    padded = tiles.pad(arguments, block)
    padded = jax.tree.map(lambda x: reverse_mode_only(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, padded)
    output, lse = _attention(block, tiles.vary(padded, padded))
    return output[..., :queries, :], lse[..., :queries]


def _forward(block: Block, arguments: Arguments):
    careful = tiles.careful(arguments)

    def visit(rows: Rows, corner: Corner) -> Rows:
        tile, where = tiles.cut(arguments, corner, block)
        allowed = masks.allowed(arguments, tile, where)
        state = Rows(*(tiles.part(x, "bkrt", corner, block) for x in rows))
        state = unless_empty(
            _known_late(arguments, allowed, block), lambda: attend_tile(state, tile, where, allowed, careful), state
        )
        return Rows(*(tiles.put(x, "bkrt", corner, update) for x, update in zip(rows, state, strict=True)))

    output, lse, norm = finish(arguments, each_tile(arguments, block, visit, start(arguments)))
    return (output, lse), (arguments, output, norm)


def start(arguments: Arguments) -> Rows:
    """Rows without a key."""
    rows = arguments.query.shape[:-1]
    zeros = jnp.zeros(rows, arguments.dtype)
    return Rows(zeros - jnp.inf, zeros, jnp.zeros((*rows, arguments.value.shape[-1]), arguments.dtype))


def attend_tile(rows: Rows, tile: Arguments, where, allowed, careful) -> Rows:
    """The rows after the keys of one more tile."""
    logits = tiles.logits(tile, where, allowed, careful)
    if tile.normalizer == "sigmoid":
        weights, fade = jax.nn.sigmoid(logits), 1
        highest, total = rows.highest, rows.total
    else:
        highest = jnp.maximum(rows.highest, lax.stop_gradient(jnp.max(logits, axis=-1)))
        weights = jnp.exp(logits - finite(highest)[..., None])
        fade = jnp.exp(rows.highest - finite(highest))
        total = rows.total * fade + jnp.sum(weights, axis=-1)
        fade = fade[..., None]
    weights = tiles.drop(tile, where, weights)
    output = tiles.contract("bkrtc", "bkrts", weights, "bksc", tile.value, allowed, careful)
    return Rows(highest, total, rows.output * fade + output)


def finish(arguments: Arguments, rows: Rows) -> tuple[Array, Array, Norm]:
    """Output and log-sum-exp of the keys, after the last tile."""
    if arguments.normalizer == "sigmoid":
        ones = jnp.ones_like(rows.total)
        return rows.output, jnp.full_like(rows.highest, -jnp.inf), Norm(jnp.zeros_like(ones), ones, ones)
    sink = _sink(arguments, rows.highest.dtype)
    highest = finite(rows.highest if sink is None else lax.stop_gradient(jnp.maximum(rows.highest, sink)))
    fade = jnp.exp(rows.highest - highest)
    of_keys = rows.total * fade
    total = of_keys if sink is None else of_keys + jnp.exp(sink - highest)
    total = jnp.where(total == 0, 1, total)
    empty = rows.total == 0
    lse = jnp.where(empty, -jnp.inf, finite(rows.highest) + jnp.log(jnp.where(empty, 1, rows.total)))
    return rows.output * (fade / total)[..., None], lse, Norm(highest, total, of_keys)


def _backward(block: Block, saved, cotangents):
    arguments, output, norm = saved
    gradient, lse_gradient = cotangents
    empty = norm.of_keys == 0
    gradient = jnp.where(empty[..., None], 0, gradient)
    mean = jnp.sum(gradient * output, axis=-1)
    shift = mean - jnp.where(empty, 0, lse_gradient * norm.total / jnp.where(empty, 1, norm.of_keys))
    # Divided here, a row at a time, so that the exponentials of a tile stand in for its weights.
    gradient, shift = gradient / norm.total[..., None], shift / norm.total
    careful = tiles.careful(arguments, gradient)
    zeros = gradients.zeros(arguments)

    def visit(sums: gradients.Gradients, corner: Corner) -> gradients.Gradients:
        tile, where = tiles.cut(arguments, corner, block)
        allowed = masks.allowed(arguments, tile, where)
        rows = [tiles.part(x, "bkrt", corner, block) for x in (gradient, norm.highest, shift)]
        update = unless_empty(
            _known_late(arguments, allowed, block), lambda: _tile_gradients(tile, where, allowed, careful, *rows)
        )
        return gradients.add(sums, update, corner, block)

    sums = each_tile(arguments, block, visit, zeros)
    sink = None
    if arguments.sink is not None:
        sink = -jnp.sum(jnp.exp(arguments.sink[:, :, None] - norm.highest) / norm.total * mean, axis=(0, 3))
    return (gradients.cotangent(arguments, sums, sink),)


def _tile_gradients(tile: Arguments, where, allowed, careful, gradient: Array, highest: Array, shift: Array):
    scores, pull_scores = gradients.scores_vjp(tile, allowed, careful)
    logits, pull_logits = gradients.modify_vjp(tile, where, scores, allowed)
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
    score_gradient, bias, score_mod = pull_logits(logit_gradient)
    score_gradient = score_gradient if allowed is None else jnp.where(allowed, score_gradient, 0)
    query, key, score, scale = pull_scores(score_gradient)
    return gradients.Gradients(query, key, value, bias, score, scale, score_mod)


_attention: Callable[[Block, Arguments], tuple[Array, Array]]
_attention = jax.custom_vjp(lambda block, arguments: _forward(block, arguments)[0], nondiff_argnums=(0,))
_attention.defvjp(_forward, _backward)


def _sink(arguments: Arguments, dtype: jnp.dtype) -> Array | None:
    return None if arguments.sink is None else arguments.sink[:, :, None].astype(dtype)


def with_sink(arguments: Arguments, lse: Array) -> Array:
    """log(exp(lse) + exp(sink)), −inf where both are; `logaddexp` would have no gradient there."""
    sink = _sink(arguments, lse.dtype)
    if sink is None:
        return lse
    highest = finite(lax.stop_gradient(jnp.maximum(lse, sink)))
    total = jnp.exp(lse - highest) + jnp.exp(sink - highest)
    return jnp.where(total == 0, -jnp.inf, highest + jnp.log(jnp.where(total == 0, 1, total)))


def unless_empty(allowed: Allowed | None, compute: Callable[[], T], otherwise: T | None = None) -> T:
    """What `compute` gives, or where no query of the tile may attend to a key of it, the other at once (None: zeros)."""
    if allowed is None:
        return compute()
    if otherwise is None:
        shapes = jax.eval_shape(compute)
        otherwise = tiles.vary(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), shapes)
    return lax.cond(jnp.any(allowed), compute, lambda: otherwise)


def _known_late(arguments: Arguments, allowed: Allowed | None, block: Block) -> Allowed | None:
    """The mask, where it may empty one of several tiles: what positions alone empty is not in the list of tiles."""
    return allowed if arguments.masks_by_array and block != tiles.whole(arguments) else None


def each_tile(arguments: Arguments, block: Block, visit: Callable[[T, Corner], T], state: T) -> T:
    """The state after a visit to each tile that causality and the window leave anything of."""
    size = tiles.whole(arguments)
    pairs = jnp.asarray(masks.tiles_in_band(arguments, size.query, size.key, block.query, block.key))
    head_groups = size.heads // block.heads
    groups = (size.batch // block.batch) * head_groups

    def step(state: T, index: Array) -> tuple[T, None]:
        group, pair = index // len(pairs), index % len(pairs)
        query, key = pairs[pair]
        corner = Corner(
            group // head_groups * block.batch, group % head_groups * block.heads, query * block.query, key * block.key
        )
        return visit(state, corner), None

    state = tiles.vary(state, arguments)
    if groups * len(pairs) == 1:  # a loop of one keeps XLA from fusing across it
        return visit(state, Corner())
    return lax.scan(step, state, jnp.arange(groups * len(pairs), dtype=jnp.int32))[0]
