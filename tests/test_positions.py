"""Positions against loops, complex numbers and the properties that their papers state."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.positions import Relative, rotary, sinusoidal

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, S, N, H = 3, 5, 7, 2, 6


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


def turn(x, positions, base=10_000.0, interleaved=False, sign=1):
    """Each pair of `x [..., T, N, H]` as a complex number in float64, times e^(i · position · θ)."""
    x = np.asarray(x, np.float64)
    firsts = range(0, x.shape[-1], 2) if interleaved else range(x.shape[-1] // 2)
    expected = np.empty_like(x)
    for pair, first in enumerate(firsts):
        second = first + 1 if interleaved else first + x.shape[-1] // 2
        theta = 1 / base ** (2 * pair / x.shape[-1])
        turned = (x[..., first] + 1j * x[..., second]) * np.exp(sign * 1j * np.asarray(positions)[..., None] * theta)
        expected[..., first], expected[..., second] = turned.real, turned.imag
    return expected


@pytest.mark.parametrize("interleaved", [True, False])
def test_sinusoidal_is_the_papers_formula(interleaved):
    length, dim = 3_000, 10
    expected = np.empty((length, dim))
    for position in range(length):
        for i in range(dim // 2):
            angle = position / 10_000 ** (2 * i / dim)
            sine, cosine = (2 * i, 2 * i + 1) if interleaved else (i, dim // 2 + i)
            expected[position, sine], expected[position, cosine] = math.sin(angle), math.cos(angle)
    table = sinusoidal(length, dim, interleaved=interleaved)
    assert table.dtype == jnp.float32
    np.testing.assert_allclose(table, expected, rtol=0, atol=2.0**-25)  # half a last place of float32: rounded once


def test_sinusoidal_by_hand():
    np.testing.assert_allclose(sinusoidal(2, 4), [[0, 1, 0, 1], [0.841471, 0.540302, 0.01, 0.99995]], atol=1e-6)
    split = [[0, 0, 1, 1], [0.841471, 0.01, 0.540302, 0.99995]]
    np.testing.assert_allclose(sinusoidal(2, 4, interleaved=False), split, atol=1e-6)


def test_a_step_turns_each_pair_of_the_sinusoidal_table():
    """Section 3.5: PE[pos + k] is a linear function of PE[pos], the same for every pos."""
    table = np.asarray(sinusoidal(12, H), np.float64)
    swapped = table.reshape(12, 1, H // 2, 2)[..., ::-1].reshape(12, 1, H)  # cosine + i sine
    moved = turn(swapped[:-4], np.full(8, 4), interleaved=True)
    np.testing.assert_allclose(moved, swapped[4:], atol=1e-6)


@pytest.mark.parametrize(
    "length, dim, message",
    [(5, 7, "dim=7 is not positive and even"), (5, 0, "dim=0 is not positive and even"), (-1, 6, "length=-1 is negative")],
)
def test_sinusoidal_refuses(length, dim, message):
    with pytest.raises(ValueError, match=message):
        sinusoidal(length, dim)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("base", [10_000.0, 50.0])
@pytest.mark.parametrize("positions", [None, np.array([4, 0, 9, -3, 1]), np.arange(B * T).reshape(B, T)[::-1]])
def test_rotary_is_a_product_of_complex_numbers(positions, base, interleaved):
    x, g = random(B, T, N, H), random(B, T, N, H)[::-1]

    def rotate(x):
        return rotary(x, None if positions is None else jnp.asarray(positions), base=base, interleaved=interleaved)

    at = np.arange(T) if positions is None else positions
    with jax.enable_x64(True):
        output, pull = jax.vjp(rotate, jnp.asarray(x))
        (gradient,) = pull(jnp.asarray(g))
    assert output.dtype == jnp.float64
    np.testing.assert_allclose(output, turn(x, at, base, interleaved), atol=1e-13)
    np.testing.assert_allclose(gradient, turn(g, at, base, interleaved, sign=-1), atol=1e-13)  # the transposed is the inverse
    np.testing.assert_allclose(rotate(jnp.asarray(x, jnp.float32)), turn(x, at, base, interleaved), atol=1e-5)


@pytest.mark.parametrize("start", [0, 131_064, 10**6, 2**24 - 9, 2**31 - 9, -(2**31), -(10**6)])
def test_rotary_is_exact_far_out(start):
    """Angles in float32 would be off by 1e-3 at position 131,072."""
    x, at = random(8, N, 64).astype(np.float32), start + np.arange(8)
    truth, atol = turn(x.astype(np.float64), at), 1e-6 * np.abs(x).max()
    np.testing.assert_allclose(rotary(x, at), truth, atol=atol)
    np.testing.assert_allclose(jax.jit(rotary)(x, at), truth, atol=atol)
    with jax.enable_x64(True):
        np.testing.assert_allclose(rotary(x, jnp.asarray(at)), truth, atol=atol)
        np.testing.assert_allclose(rotary(jnp.asarray(x, jnp.float64), at), truth, atol=1e-6)
        np.testing.assert_allclose(rotary(x, at + 2**40), turn(x, at + 2**40), atol=1e-3)
    with pytest.raises(ValueError, match=r"positions from .* must fit in 32 bits"):
        rotary(x, at + 2**40)


def test_rotary_without_positions_is_exact_at_the_end():
    x = np.zeros((131_072, 1, 2), np.float32)
    x[..., 0] = 1
    np.testing.assert_allclose(rotary(x)[:, 0], np.stack([np.cos(np.arange(len(x))), np.sin(np.arange(len(x)))], -1), atol=5e-7)


def test_rotary_by_hand():
    """H = 4: the first pair turns by 1 radian a position, the second by a hundredth."""
    x, one = jnp.array([[[1.0, 0.0, 0.0, 1.0]]]), jnp.array([1])
    np.testing.assert_allclose(rotary(x, one)[0, 0], [math.cos(1), -math.sin(0.01), math.sin(1), math.cos(0.01)], atol=1e-6)
    turned = rotary(x, one, interleaved=True)[0, 0]
    np.testing.assert_allclose(turned, [math.cos(1), math.sin(1), -math.sin(0.01), math.cos(0.01)], atol=1e-6)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotary_keeps_norms_and_scores_by_distance_alone(interleaved):
    query, key = (jnp.asarray(x, jnp.float32) for x in (random(T, N, H), random(S, N, H)[::-1]))
    at_query, at_key = jnp.array([3, 1, 4, 1, 5]), jnp.array([9, 2, 6, 5, 3, 5, 8])

    def scores(query_shift, key_shift):
        turned = rotary(query, at_query + query_shift, interleaved=interleaved)
        np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(query, axis=-1), rtol=1e-5)
        return jnp.einsum("tnh,snh->nts", turned, rotary(key, at_key + key_shift, interleaved=interleaved))

    np.testing.assert_allclose(scores(0, 0), scores(11, 11), atol=1e-4)
    assert not np.allclose(scores(0, 0), scores(11, 10), atol=0.1)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_rotary_keeps_the_dtype_and_rounds_once(dtype):
    """At position 1001 an angle in bfloat16 would be off by a radian."""
    x, at = jnp.asarray(random(T, N, H), dtype), jnp.arange(1001, 1001 + T)
    output = rotary(x, at)
    assert output.dtype == dtype
    np.testing.assert_array_equal(output, rotary(x.astype(jnp.float32), at).astype(dtype))
    np.testing.assert_allclose(output.astype(jnp.float32), turn(x.astype(jnp.float32), at), atol=0.02)


def test_rotary_of_one_example_is_that_of_a_batch():
    x, at = jnp.asarray(random(B, T, N, H), jnp.float32), jnp.arange(B * T).reshape(B, T)
    np.testing.assert_allclose(jax.vmap(rotary)(x, at), rotary(x, at), atol=1e-6)
    np.testing.assert_allclose(rotary(x[1], at[1]), rotary(x, at)[1], atol=1e-6)


@pytest.mark.parametrize(
    "shape, positions, message",
    [
        ((T, N, 5), None, r"x \(5, 2, 5\) has head dim 5: rotary positions rotate pairs"),
        ((B, T, N, H), jnp.arange(B), r"positions \(3,\) are not \(5,\) or \(3, 5\) of x \(3, 5, 2, 6\)"),
        ((B, T, N, H), jnp.ones((1, T), int), r"positions \(1, 5\) are not"),
        ((T, N, H), jnp.ones(T), "positions is float32: it must be integers"),
    ],
)
def test_rotary_refuses(shape, positions, message):
    with pytest.raises(ValueError, match=message):
        rotary(jnp.zeros(shape), positions)


def test_attention_with_rotary_positions_knows_distances_alone():
    """Queries and keys at 0, 1, 2, … and at 20, 21, 22, …: the same output, and another than without positions."""
    query, key, value = (jnp.asarray(random(n, N, H) + n / 9, jnp.float32) for n in (T, S, S))
    outputs = [attn.attend(rotary(query, jnp.arange(T) + c), rotary(key, jnp.arange(S) + c), value) for c in (0, 20)]
    np.testing.assert_allclose(*outputs, atol=1e-5)
    assert not np.allclose(outputs[0], attn.attend(query, key, value), atol=1e-2)


def test_relative_changes_nothing_unless_asked():
    x = jnp.ones((T, N, H))
    assert Relative().rotate(x) is x
    assert Relative().score_mod is None
