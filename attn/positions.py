"""Positional encodings: tables that are added to the embeddings, and rotary positions, which rotate queries and keys.

ALiBi and the relative biases of T5 modify scores; they are in `attn.score_mods`.
"""

import operator
from collections.abc import Callable
from typing import NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jax import lax

from attn._dtypes import at_least_float32
from attn._integers import as_positions
from attn.score_mods import ScoreMod
from attn.shapes import Array

TABLES = ("learned", "sinusoidal", "sinusoidal_split")  # added to the embeddings
RELATIVE = ("rotary", "alibi", "t5")  # inside attention: the scores depend on distances
KINDS = ("none", *TABLES, *RELATIVE)


def identity(x: Array) -> Array:
    return x


class Relative(NamedTuple):
    """Relative positions, as two functions that a layer applies inside of its attention.

    Attributes:
      rotate: maps the projected queries `[*B, T, N, H]`, and the projected keys `[*B, S, N, H]`, to the same shape.
      score_mod: the argument of that name of `attn.attend`.
    """

    rotate: Callable[[Array], Array] = identity
    score_mod: ScoreMod | None = None


def sinusoidal(length: int, dim: int, *, interleaved: bool = True) -> Array:
    """`[length, dim]` float32: the sine and cosine of position / 10000^(2i / dim) for i = 0 … dim / 2 − 1.

    Args:
      interleaved: True puts sine i into column 2i and its cosine into column 2i + 1, as in Vaswani et al. (2017, section 3.5)
        and d2l. False puts all sines before all cosines, as the authors' tensor2tensor does. The exponents are the paper's in
        both layouts; those of tensor2tensor are i / (dim / 2 − 1).

    Raises:
      ValueError: `dim` is not positive and even, or `length` is negative.
    """
    length, dim = operator.index(length), operator.index(dim)
    if length < 0:
        raise ValueError(f"length={length} is negative")
    if dim < 2 or dim % 2:
        raise ValueError(f"dim={dim} is not positive and even: each sine has its cosine")
    angles = np.arange(length)[:, None] * _frequencies(dim, 10_000.0)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1 if interleaved else 1)  # float64, rounded once
    return jnp.asarray(table.reshape(length, dim), jnp.float32)


def rotary(x: Array, positions: Array | None = None, *, base: float = 10_000.0, interleaved: bool = False) -> Array:
    """Rotates pair i of each head by the angle position · base^(−2i / H) (Su et al. 2021, section 3.4.2).

    The inner product of a query and a key that are both rotated depends on their positions through their distance only.

    Args:
      x: projected queries or keys, `[*B, T, N, H]`.
      positions: integers `[T]` or `[*B, T]`; None means 0, 1, 2, …. They may be traced, as in a decoding step. Any position of
        32 bits is exact: the error does not grow with it. Those of 64 bits need jax_enable_x64.
      base: the base of the frequencies.
      interleaved: False pairs the entries i and i + H / 2, as GPT-NeoX and Llama do; True pairs 2i and 2i + 1, as in RoFormer.

    Returns:
      The rotated array, of the shape and dtype of `x`.

    Raises:
      ValueError: H is odd, or `positions` are not integers of one of these shapes.
    """
    dtype, length, head_dim = x.dtype, x.shape[-3], x.shape[-1]
    if head_dim % 2:
        raise ValueError(f"x {x.shape} has head dim {head_dim}: rotary positions rotate pairs, so it must be even")
    if positions is None:
        positions = jnp.arange(length, dtype=jnp.int32)
    positions = cast(Array, as_positions(absolute=True, positions=positions)["positions"])
    if positions.shape not in ((length,), x.shape[:-2]):
        raise ValueError(f"positions {positions.shape} are not {(length,)} or {x.shape[:-2]} of x {x.shape}")
    x = x.astype(at_least_float32(dtype))
    cos, sin = _cos_and_sin(
        positions.reshape(*(1,) * (x.ndim - 2 - positions.ndim), *positions.shape, 1, 1), head_dim, base, x.dtype
    )
    pairs = (*x.shape[:-1], head_dim // 2, 2) if interleaved else (*x.shape[:-1], 2, head_dim // 2)
    axis = -1 if interleaved else -2
    first, second = (half.squeeze(axis) for half in jnp.split(x.reshape(pairs), 2, axis))
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis)
    return turned.reshape(x.shape).astype(dtype)


def _cos_and_sin(positions: Array, dim: int, base: float, dtype: np.dtype) -> tuple[Array, Array]:
    """The cosines and sines of the angles of positions `[.., 1]`, `[.., dim / 2]`.

    In float32 the product of a position and a frequency is off by 1e-3 at position 100,000, so it is computed as a fraction of
    a turn in integers, of which whole turns drop out: position · frequency / 2π modulo 1, in units of 2⁻³².
    """
    frequencies = _frequencies(dim, base).reshape((1,) * (positions.ndim - 1) + (-1,))
    if dtype == jnp.float64 or positions.dtype == jnp.int64:
        angles = positions.astype(jnp.float64) * frequencies
        return jnp.cos(angles).astype(dtype), jnp.sin(angles).astype(dtype)
    turns = frequencies / (2 * np.pi) % 1 * 2.0**32
    whole, rest = turns.astype(np.uint32), (turns % 1 * 2.0**32).astype(np.uint32)  # 64 bits of the fraction of a turn
    distance = jnp.abs(positions).astype(jnp.uint32)
    low, high = distance & 0xFFFF, distance >> 16
    carried = high * (rest >> 16) + (high * (rest & 0xFFFF) >> 16) + (low * (rest >> 16) >> 16)  # distance · rest / 2³²
    turn = distance * whole + carried  # of which uint32 keeps the fraction
    quarter = (turn + 2**29) >> 30  # the nearest quarter turn, modulo 4, from which the angle is π / 4 at most
    angle = lax.bitcast_convert_type(turn - (quarter << 30), jnp.int32).astype(dtype) * np.asarray(2 * np.pi / 2**32, dtype)
    cos, sin = _near_zero(angle)
    cos, sin = jnp.where(quarter & 1 == 1, sin, cos), jnp.where(quarter & 1 == 1, cos, sin)
    cos = jnp.where((quarter == 1) | (quarter == 2), -cos, cos)
    return cos, jnp.where((quarter >= 2) ^ (positions < 0), -sin, sin)


def _near_zero(angle: Array) -> tuple[Array, Array]:
    """Cosine and sine in float32 of angles up to π / 4: the polynomials of Moshier's Cephes library (`sinf.c`).

    XLA's own functions reduce any angle first, and its CPU backend computes them again for each head, in the loop that reads
    them: rotary positions of [8, 256, 4, 32] take 1.4 ms with them on two cores, and 0.25 ms with these.
    """
    square = angle * angle
    cos = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square + 4.166664568298827e-2
    sin = (-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1
    return cos * square * square - 0.5 * square + 1, sin * square * angle + angle


def _frequencies(dim: int, base: float) -> np.ndarray:
    """`[dim / 2]` float64: base^(−2i / dim)."""
    return float(base) ** (-np.arange(0, dim, 2) / dim)
