"""Where a token is: tables that are added to embeddings, and what attention itself does with positions.

ALiBi and T5's biases are score mods, in `attn.score_mods`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from attn.score_mods import ScoreMod
from attn.shapes import Array

TABLES = ("learned", "sinusoidal", "sinusoidal_split")  # added to the embeddings
RELATIVE = ("rotary", "alibi", "t5")  # inside attention: the scores depend on distances
KINDS = ("none", *TABLES, *RELATIVE)


def identity(x: Array) -> Array:
    return x


class Relative(NamedTuple):
    """What a kind of positions does inside attention.

    `rotate` takes the projected queries `[*B, T, N, H]`, and the keys `[*B, S, N, H]`, to the same shape. `score_mod` is
    that of `attn.attend`.
    """

    rotate: Callable[[Array], Array] = identity
    score_mod: ScoreMod | None = None


def sinusoidal(length: int, dim: int, *, interleaved: bool = True) -> Array:
    """`[length, dim]` float32: the sine and cosine of position / 10000^(2i / dim) for i = 0 … dim / 2 − 1.

    Interleaved, sine i is in column 2i and its cosine in 2i + 1, as Vaswani et al. (2017, section 3.5) write it, and d2l.
    Else all sines come before all cosines, as in the authors' tensor2tensor. Its exponents are i / (dim / 2 − 1); here they
    are the paper's in both layouts. Raises ValueError where `dim` is not positive and even, or `length` is negative.
    """
    if length < 0:
        raise ValueError(f"length={length} is negative")
    if dim < 2 or dim % 2:
        raise ValueError(f"dim={dim} is not positive and even: each sine has its cosine")
    angles = np.arange(length)[:, None] * _frequencies(dim, 10_000.0)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1 if interleaved else 1)  # float64, rounded once
    return jnp.asarray(table.reshape(length, dim), jnp.float32)


def rotary(x: Array, positions: Array | None = None, *, base: float = 10_000.0, interleaved: bool = False) -> Array:
    """Turns pair i of each head of queries or keys by position · base^(−2i / H) (Su et al. 2021, section 3.4.2).

    `[*B, T, N, H]` to the same, of its dtype; `positions` are integers `[T]` or `[*B, T]`, and None means 0, 1, 2, …. The
    product of a query and a key that are both turned depends on their distance alone. Pair i is the entries i and i + H / 2,
    as in GPT-NeoX and Llama, or interleaved 2i and 2i + 1, as in RoFormer.
    Raises ValueError where H is odd, or `positions` are not integers of one of these shapes.
    """
    dtype, length, head_dim = x.dtype, x.shape[-3], x.shape[-1]
    if head_dim % 2:
        raise ValueError(f"x {x.shape} has head dim {head_dim}: rotary positions turn pairs, so it must be even")
    positions = jnp.arange(length) if positions is None else jnp.asarray(positions)
    if positions.shape not in ((length,), x.shape[:-2]) or not jnp.issubdtype(positions.dtype, jnp.integer):
        raise ValueError(
            f"positions {positions.shape} {positions.dtype} are not integers {(length,)} or {x.shape[:-2]} of x {x.shape}"
        )
    x = x.astype(jnp.promote_types(dtype, jnp.float32))
    angles = positions[..., None, None].astype(x.dtype) * jnp.asarray(_frequencies(head_dim, base), x.dtype)
    cos, sin = jnp.cos(angles), jnp.sin(angles)  # [*B or none, T, 1, H / 2]
    pairs = (*x.shape[:-1], head_dim // 2, 2) if interleaved else (*x.shape[:-1], 2, head_dim // 2)
    axis = -1 if interleaved else -2
    first, second = (half.squeeze(axis) for half in jnp.split(x.reshape(pairs), 2, axis))
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis)
    return turned.reshape(x.shape).astype(dtype)


def _frequencies(dim: int, base: float) -> np.ndarray:
    """`[dim / 2]` float64: base^(−2i / dim)."""
    return base ** (-np.arange(0, dim, 2) / dim)
