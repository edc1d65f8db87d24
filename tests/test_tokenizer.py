"""The words and ids of `keras.datasets.imdb`, against loops over single bytes and against its published numbers."""

import collections

import numpy as np
import pytest

from experiments.data import tokenizer
from experiments.data.imdb_archive import Archive
from experiments.data.tokenizer import Tokenizer

SMALL = Tokenizer(words=(b"the", b"film", b"was", b"good"), vocabulary_size=6, max_length=3)
TOP = "the 336148 and 164097 a 163040 of 145847 to 135708 is 107313 br 101871 in 93934 it 79058 i 77142 this 75974 that 69787"


def words_byte_by_byte(text: bytes) -> list[bytes]:
    """The rule as it is written down, one byte at a time."""
    words, word = [], []
    for byte in [*text, ord(" ")]:
        if byte in b'!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n ':
            if word:
                words.append(bytes(word))
            word = []
        else:
            word.append(byte + 32 if 65 <= byte <= 90 else byte)
    return words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"This film<br /><br />WAS, just", [b"this", b"film", b"br", b"br", b"was", b"just"]),
        (b"don't", [b"don't"]),
        (b"a\r\nb\x0bc\x00d", [b"a\r", b"b\x0bc\x00d"]),
        ("\N{LATIN CAPITAL LETTER E WITH ACUTE}A".encode(), [b"\xc3\x89a"]),
        (b"\xff\xfe", [b"\xff\xfe"]),
        (b"", []),
        (b" \t\n!", []),
    ],
)
def test_split(text, words):
    assert tokenizer.split(text) == words == words_byte_by_byte(text)


def test_split_of_random_bytes():
    random = np.random.default_rng(0)
    for _ in range(200):
        text = random.integers(0, 256, 400, np.uint8).tobytes()
        assert tokenizer.split(text) == words_byte_by_byte(text)


def test_a_line_of_10_megabytes():
    assert SMALL.encode(b"x" * 10_000_000) == ([1], 1)
    assert len(SMALL.encode(b"the " * 2_500_000).ids) == 2_500_001


def test_words_are_ranked_by_count_then_by_their_bytes():
    counts = tokenizer.count_words([b"b a B", b"c \xff A b", b"c"])
    assert counts == {b"b": 3, b"a": 2, b"c": 2, b"\xff": 1}
    assert tokenizer.rank_words(counts) == (b"b", b"a", b"c", b"\xff")
    assert tokenizer.rank_words(collections.Counter()) == ()


def test_ids_beyond_the_vocabulary_are_marked_and_unknown_words_dropped():
    # Ranks 1 to 4 have ids 4 to 7, of which a vocabulary of 6 holds 4 and 5.
    encoded = SMALL.encode(b"The film was nowhere good")
    assert encoded.ids == [1, 4, 5, 2, 2]
    assert encoded.out_of_vocabulary == 3
    assert SMALL.encode(b"") == ([1], 0)


def test_pad_keeps_the_last_ids_and_pads_at_the_end():
    tokens = SMALL.pad([[1, 4, 5, 2], [1, 4], []])
    np.testing.assert_array_equal(tokens, [[4, 5, 2], [1, 4, 0], [0, 0, 0]])
    assert tokens.dtype == np.uint16
    assert SMALL.pad([]).shape == (0, 3)


def test_the_largest_vocabulary_fits_its_dtype():
    words = tuple(b"%d" % n for n in range(70_000))
    rows = [Tokenizer(words, vocabulary_size=65_536, max_length=4).encode(b"65531 65532 65533").ids]
    assert rows == [[1, 65_535, 2, 2]]
    np.testing.assert_array_equal(Tokenizer(words, 65_536, 4).pad(rows), rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((65_537, 8), "vocabulary_size=65537 is outside 4 to 65536: four reserved ids, stored as uint16"),
        ((3, 8), "vocabulary_size=3 is outside 4 to 65536"),
        ((10, 0), "max_length=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_be_honoured(settings, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        Tokenizer((), *settings)
    assert "\n" not in str(caught.value)


def test_words_of_the_real_train(real_content: Archive):
    counts = tokenizer.count_words(review.text for review in real_content.splits["train"])
    words = tokenizer.rank_words(counts)
    assert len(words) == 88_584
    assert " ".join(f"{word.decode()} {counts[word]}" for word in words[:12]) == TOP
    assert Tokenizer(words, 10_000, 256).encode(b"brilliant").ids == [1, 529]
