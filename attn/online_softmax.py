"""The online softmax: rows that are attended to one tile of keys after the other (Milakov and Gimelshein 2018)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from attn import tiles
from attn.arguments import Arguments
from attn.normalizers import finite
from attn.shapes import Array


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
    norm = _norm(arguments, rows.highest, rows.total)
    empty = rows.total == 0
    lse = jnp.where(empty, -jnp.inf, finite(rows.highest) + jnp.log(jnp.where(empty, 1, rows.total)))
    fade = jnp.exp(rows.highest - norm.highest)
    return rows.output * (fade / norm.total)[..., None], lse, norm


def with_sink(arguments: Arguments, lse: Array) -> Array:
    """log(exp(lse) + exp(sink)), and 0 for a row of neither."""
    norm = _norm(arguments, lse, jnp.ones_like(lse))
    return norm.highest + jnp.log(norm.total)


def _norm(arguments: Arguments, highest: Array, total: Array) -> Norm:
    """Of rows whose keys have Σ exp(logit − highest) = total, with the sink."""
    sink = None if arguments.sink is None else arguments.sink[:, :, None].astype(highest.dtype)
    over = finite(lax.stop_gradient(highest if sink is None else jnp.maximum(highest, sink)))
    of_keys = total * jnp.exp(highest - over)
    total = of_keys if sink is None else of_keys + jnp.exp(sink - over)
    return Norm(over, jnp.where(total == 0, 1, total), of_keys)
