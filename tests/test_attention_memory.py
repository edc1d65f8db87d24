"""Memory is linear in the length, forward and backward: what the compiler asks for, so nothing is run or timed."""

import pytest

from scripts.attention_memory import CASES, LENGTHS, MIB, temporary_bytes

pytestmark = pytest.mark.usefixtures("fast_compilation")  # the bytes are the same


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lengths", [LENGTHS[1:], pytest.param(LENGTHS[:2], marks=pytest.mark.exhaustive)])
def test_four_times_the_length_is_at_most_4_2_times_the_memory(lengths, case, backward):
    shorter, longer = (temporary_bytes(case, length, "chunked", backward) for length in lengths)
    assert longer <= 4.2 * shorter
    assert longer <= 512 * MIB


def test_auto_is_chunked_and_dense_would_fail():
    assert temporary_bytes("scaled_dot", LENGTHS[1], "auto", True) == temporary_bytes("scaled_dot", LENGTHS[1], "chunked", True)
    dense = [temporary_bytes("scaled_dot", length, "dense", True) for length in LENGTHS[:2]]
    assert dense[1] > 10 * dense[0]
