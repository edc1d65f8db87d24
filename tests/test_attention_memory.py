"""Memory is linear in the length, forward and backward: what the compiler asks for, so nothing is run or timed."""

import itertools

import pytest

from scripts.attention_memory import CASES, LENGTHS, MIB, temporary_bytes

pytestmark = pytest.mark.usefixtures("fast_compilation")  # the bytes are the same


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
@pytest.mark.parametrize("case", CASES)
def test_four_times_the_length_is_at_most_4_2_times_the_memory(case, backward):
    sizes = [temporary_bytes(case, length, "chunked", backward) for length in LENGTHS]
    assert all(longer <= 4.2 * shorter for shorter, longer in itertools.pairwise(sizes)), sizes
    assert sizes[-1] <= 512 * MIB


def test_auto_is_chunked_and_dense_would_fail():
    assert temporary_bytes("scaled_dot", LENGTHS[1], "auto", True) == temporary_bytes("scaled_dot", LENGTHS[1], "chunked", True)
    dense = [temporary_bytes("scaled_dot", length, "dense", True) for length in LENGTHS[:2]]
    assert dense[1] > 10 * dense[0]
