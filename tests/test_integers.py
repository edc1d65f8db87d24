"""Integers of any width and origin: lengths, segments, positions, and numbers of NumPy where Python's are expected."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import KEY, POSITIONS, QUERY, VALUE, B, N, S, T, distance

import attn
from attn import mask_mods, score_mods
from attn.layers import d2l

pytestmark = pytest.mark.usefixtures("fast_compilation")

IDS = np.array([1, 1, 2, 2, 3]), np.array([1, 1, 2, 2, 2, 3, 1])
WIDE = tuple((x << 32) | 7 for x in IDS)  # a shard and a number in it, as data pipelines make them
SAME_DOCUMENT = IDS[0][:, None] == IDS[1]
MAX = {name: np.iinfo(name).max for name in ("int32", "uint32", "int64", "uint64")}
MILLISECONDS = 1_700_000_000_000
attend = jax.jit(attn.attend, static_argnames=("causal", "window"))


def check(output, allowed):
    truth = oracle.attend(QUERY, KEY, VALUE, allowed=allowed).output
    np.testing.assert_allclose(output, truth, atol=2e-6)


@pytest.mark.parametrize("dtype", MAX)
@pytest.mark.parametrize("make", [np.array, list, jnp.asarray])
def test_the_largest_length_is_no_limit(dtype, make):
    if make is jnp.asarray and "64" in dtype:
        with jax.enable_x64(True):
            check(attn.attend(QUERY, KEY, VALUE, key_lengths=jnp.array([MAX[dtype], 4], dtype)), np.arange(S) < _column(S, 4))
        return
    lengths = [int(MAX[dtype]), 4] if make is list else make(np.array([MAX[dtype], 4], dtype))
    check(attn.attend(QUERY, KEY, VALUE, key_lengths=lengths), np.arange(S) < _column(S, 4))
    check(attn.attend(QUERY, KEY, VALUE, query_lengths=lengths), np.arange(T)[:, None] < _column(T, 4))
    prefix = mask_mods.prefix(lengths)
    check(attn.attend(QUERY, KEY, VALUE, mask_mod=prefix), np.arange(S) < _column(S, 4))


@pytest.mark.parametrize("value", [-1, np.iinfo(np.int64).min, np.int8(-3)])
def test_a_negative_length_is_0(value):
    check(attn.attend(QUERY, KEY, VALUE, key_lengths=np.array([value, 4])), np.arange(S) < _column(0, 4))


def test_lengths_of_d2l():
    layer, x = d2l.DotProductAttention(0.0), (QUERY[:, :, 0], KEY[:, :, 0], VALUE[:, :, 0])
    short = layer.apply({}, *x, np.array([S, 4]))
    for lengths in (np.array([sys.maxsize, 4]), [sys.maxsize, 4], np.array([2**32 - 1, 4], np.uint32)):
        np.testing.assert_array_equal(layer.apply({}, *x, lengths), short)


@pytest.mark.parametrize("offset", [0, -(2**62), 2**61])
@pytest.mark.parametrize(
    "make", [np.array, np.ndarray.tolist, lambda x: x.astype(np.uint64)], ids=["int64", "Python", "uint64"]
)
def test_segments_of_64_bits(make, offset):
    query, key = (make(ids + offset) for ids in WIDE)
    check(attn.attend(QUERY, KEY, VALUE, query_segments=query, key_segments=key), SAME_DOCUMENT)


def test_segments_of_different_types():
    """−1 and the largest uint64 have the same bits, and are not equal."""
    query = np.array([-1, 5, 5, 5, 7])
    key = np.array([2**64 - 1, 5, 5, 9, 9, 7, 7], np.uint64)
    allowed = np.array([[False] * 7] + [[x == y for y in key.tolist()] for x in query.tolist()[1:]])
    check(attn.attend(QUERY, KEY, VALUE, query_segments=query, key_segments=key), allowed)
    unsigned = jnp.asarray(np.array([2**32 - 1, 5, 5, 9, 9, 7, 7], np.uint32))
    check(attn.attend(QUERY, KEY, VALUE, query_segments=query, key_segments=unsigned), allowed)
    with pytest.raises(ValueError, match=r"query_segments of int32 and key_segments of uint32: .*one dtype"):
        attend(QUERY, KEY, VALUE, query_segments=query.astype(np.int32), key_segments=unsigned)


def test_segments_of_jax_with_x64():
    with jax.enable_x64(True):
        for dtype in (jnp.int64, jnp.uint64):
            query, key = (jnp.asarray(ids, dtype) for ids in WIDE)
            check(attend(QUERY, KEY, VALUE, query_segments=query, key_segments=key), SAME_DOCUMENT)
            document = mask_mods.document(key)
            check(attn.attend(QUERY, KEY, VALUE, mask_mod=document), WIDE[1][:T, None] == WIDE[1])


def test_documents_of_64_bits():
    check(attn.attend(QUERY, KEY, VALUE, mask_mod=mask_mods.document(WIDE[1])), WIDE[1][:T, None] == WIDE[1])
    both = np.stack([WIDE[1], WIDE[1][::-1]])
    check(attn.attend(QUERY, KEY, VALUE, mask_mod=mask_mods.document(both)), (both[:, :T, None] == both[:, None])[:, None])


def test_positions_of_64_bits():
    """Positions that only causality and the window read are moved together; a mod would see others than it was given."""
    query, key = (x + MILLISECONDS for x in POSITIONS)
    options = {"causal": True, "window": (4, None)}
    allowed = (distance(POSITIONS) <= 0) & (distance(POSITIONS) >= -4)
    check(attn.attend(QUERY, KEY, VALUE, query_positions=query, key_positions=key, **options), allowed)
    check(
        attn.attend(QUERY, KEY, VALUE, query_positions=query.tolist(), key_positions=key.astype(np.uint64), **options), allowed
    )
    unsigned = [jnp.asarray((x + 2**31).astype(np.uint32)) for x in POSITIONS]
    check(attn.attend(QUERY, KEY, VALUE, query_positions=unsigned[0], key_positions=unsigned[1], **options), allowed)
    with pytest.raises(ValueError, match=r"query_positions from 1700000000000 to 1700000000009: .* must fit in 32 bits"):
        attn.attend(QUERY, KEY, VALUE, query_positions=query, key_positions=key, score_mod=score_mods.alibi(N))
    with pytest.raises(ValueError, match=r"query_positions from 1700000000000 to 1700000000009: .* must fit in 32 bits"):
        attn.attend(QUERY, KEY, VALUE, query_positions=query, causal=True)
    with pytest.raises(ValueError, match=r"from -2000000000 to -2000000000: .* and their distances must fit in 32 bits"):
        attn.attend(QUERY, KEY, VALUE, query_positions=np.full(T, -2_000_000_000), key_positions=np.full(S, 2_000_000_000))


def test_positions_of_64_bits_with_x64():
    with jax.enable_x64(True):
        query, key = (jnp.asarray(x + MILLISECONDS) for x in POSITIONS)
        alibi = functools.partial(attn.attend, score_mod=score_mods.alibi(N), causal=True)
        moved = jax.jit(alibi)(QUERY, KEY, VALUE, query_positions=query, key_positions=key)
        near = alibi(QUERY, KEY, VALUE, query_positions=POSITIONS[0], key_positions=POSITIONS[1])
        np.testing.assert_allclose(moved, near, atol=1e-6)
        check(attend(QUERY, KEY, VALUE, query_positions=jnp.full(T, MILLISECONDS), causal=True), np.ones((T, S), bool))


@pytest.mark.parametrize("name", ["query_lengths", "query_segments", "query_positions"])
def test_what_is_no_integer_of_64_bits_is_refused(name):
    both = {"key_segments": np.zeros(S, int)} if name == "query_segments" else {}
    with pytest.raises(ValueError, match=f"{name} has {2**70}: integers must fit in 64 bits"):
        attn.attend(QUERY, KEY, VALUE, **{name: [2**70] * T}, **both)
    with pytest.raises(ValueError, match=f"{name} is float64: it must be integers"):
        attn.attend(QUERY, KEY, VALUE, **{name: np.ones(T)}, **both)


def _column(*lengths):
    assert len(lengths) == B
    return np.array(lengths)[:, None, None, None]


OPEN = (2**31 - 1, sys.maxsize, np.int64(sys.maxsize), np.uint64(2**64 - 1))


@pytest.mark.parametrize("side", OPEN)
def test_the_largest_side_is_open(side):
    check(attn.attend(QUERY, KEY, VALUE, causal="top_left", window=(side, 0)), distance() <= 0)
    check(attn.attend(QUERY, KEY, VALUE, mask_mod=mask_mods.sliding_window(side, 0)), distance() <= 0)
    if side == sys.maxsize:
        check(attn.attend(QUERY, KEY, VALUE, mask_mod=mask_mods.sliding_window(side, side)), np.ones((T, S), bool))
        check(attn.attend(QUERY, KEY, VALUE, causal="top_left", window=(1, side)), abs(distance() + 0.5) < 1)


def test_numbers_of_numpy_are_those_of_python():
    """Window, block, rates, scales, and the arguments of mods."""
    rng = jax.random.key(3)
    table = np.linspace(-1, 1, 8 * N, dtype=np.float32).reshape(8, N)

    def run(number, real):
        return [
            attn.attend(QUERY, KEY, VALUE, causal="top_left", window=(number(2), number(1))),
            attn.attend(QUERY, KEY, VALUE, implementation="chunked", block=number(4)),
            attn.attend(QUERY, KEY, VALUE, implementation="chunked", block=(number(2), number(3)), scale=real(0.25)),
            attn.attend(QUERY, KEY, VALUE, dropout_rate=real(0.25), dropout_rng=rng, dropout_offset=(number(3), number(1))),
            attn.attend(QUERY, KEY, VALUE, score_mod=score_mods.alibi(number(N))),
            attn.attend(QUERY, KEY, VALUE, score_mod=score_mods.soft_cap(real(1.5))),
            attn.attend(QUERY, KEY, VALUE, score_mod=score_mods.t5_relative_bias(table, max_distance=number(16))),
            attn.attend(QUERY, KEY, VALUE, mask_mod=mask_mods.sliding_window(number(2), number(1))),
            attn.attend(QUERY, KEY, VALUE, mask_mod=mask_mods.prefix(number(3))),
            attn.attention_statistics(QUERY, KEY, top_k=number(2)).top_weights,
            attn.positions.sinusoidal(number(5), number(4)),
            attn.positions.rotary(QUERY[..., :2], base=real(100)),
        ]

    python = run(int, float)
    for number, real in ((np.int64, np.float64), (np.int8, np.float32), (np.uint32, np.float16), (jnp.int32, np.float32)):
        for index, (mine, theirs) in enumerate(zip(run(number, real), python, strict=True)):
            np.testing.assert_array_equal(mine, theirs, err_msg=f"{index} {number}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (np.int64(-1), 0), "causal": "top_left"}, "window=.* must be"),
        ({"window": (True, 0), "causal": "top_left"}, "window=.* must be"),
        ({"window": (2.0, 0), "causal": "top_left"}, "window=.* must be"),
        ({"block": np.int64(0), "implementation": "chunked"}, "block=.* must be"),
        ({"block": (1, 2, 3), "implementation": "chunked"}, "block=.* must be"),
        ({"block": np.float32(2), "implementation": "chunked"}, "block=.* must be"),
        ({"dropout_rate": np.bool_(False)}, "dropout_rate=.* must be"),
        ({"dropout_rate": np.float32("nan")}, "dropout_rate=.* must be"),
        (
            {"dropout_rate": 0.1, "dropout_rng": jax.random.key(0), "dropout_offset": np.int64(2**31)},
            "dropout_offset=.* must be",
        ),
        ({"dropout_rate": 0.1, "dropout_rng": jax.random.key(0), "dropout_offset": -1}, "dropout_offset=.* must be"),
    ],
)
def test_other_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attn.attend(QUERY, KEY, VALUE, **options)
