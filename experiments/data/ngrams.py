"""n-grams of words as numbers of 64 bits, so that neither words nor n-grams need a list.

The hash of a word is BLAKE2b of its bytes. That of an n-gram is made from the hash of its first n − 1 words and that of its
last one. Two of ten million n-grams have the same hash with a probability of 3e-6.
"""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

LONGEST = 5  # words of an n-gram
_SMOOTHING = 5.0  # texts
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses no bit


class Occurrences(NamedTuple):
    """The different n-grams of a text, in the order of the last word of their last occurrence; of these, shorter ones first.

    Attributes:
      hashes: uint64 `[P]`.
      last: int32 `[P]`, the index of that word.
      sizes: int8 `[P]`, the number n of words.
    """

    hashes: np.ndarray
    last: np.ndarray
    sizes: np.ndarray


@functools.lru_cache(maxsize=2**18)
def word_hash(word: bytes) -> int:
    """Returns the hash of a word, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")


def word_hashes(words: Sequence[bytes]) -> np.ndarray:
    """Returns the hash of each word, uint64 `[W]`."""
    return np.fromiter(map(word_hash, words), np.uint64, len(words))


def occurrences(single: np.ndarray, longest: int) -> Occurrences:
    """Returns the n-grams of a text with one to `longest` words, from the `word_hashes` of its words."""
    words = len(single)
    hashes, last, sizes = [single], [np.arange(words, dtype=np.int32)], [np.ones(words, np.int8)]
    for size in range(2, min(longest, words) + 1):
        mixed = hashes[-1][:-1] * _MULTIPLIER
        hashes.append((mixed ^ (mixed >> np.uint64(29))) + single[size - 1 :])
        last.append(np.arange(size - 1, words, dtype=np.int32))
        sizes.append(np.full(len(hashes[-1]), size, np.int8))
    every = Occurrences(*map(np.concatenate, (hashes, last, sizes)))
    order = np.lexsort((every.sizes, every.last))
    _, newest = np.unique(every.hashes[order][::-1], return_index=True)
    kept = order[np.sort(len(order) - 1 - newest)]
    return Occurrences(*(array[kept] for array in every))


def chosen(texts: Iterable[np.ndarray], labels: np.ndarray, features: int, choice: str) -> np.ndarray:
    """Chooses n-grams of the training texts.

    "frequency" chooses those in most texts, whatever their labels. The score of "chi2" for an n-gram in d texts, of which O_c
    have class c, is Σ_c (O_c − E_c)² / (E_c + s), where E_c is d times the share of class c in all texts: that of a χ² test,
    smoothed by s = 5, so that a rare n-gram is less likely to be chosen by chance.

    Args:
      texts: The different n-grams of each text, uint64 `[P]`.
      labels: Integers `[E]`.
      features: How many are chosen, or all if there are fewer.
      choice: "frequency" or "chi2".

    Returns:
      The hashes of those with the highest scores, uint64, in ascending order. Where scores are equal, of more texts, then
      in the order of hashes.
    """
    texts = list(texts)
    every, index, total = np.unique(np.concatenate(texts), return_inverse=True, return_counts=True)
    score = total.astype(np.float64)
    if choice == "chi2":
        classes, shares = np.repeat(labels, [len(text) for text in texts]), np.bincount(labels) / len(labels)
        score = np.zeros(len(every))
        for label, expected in enumerate(shares):
            observed = np.bincount(index[classes == label], minlength=len(every))
            score += (observed - total * expected) ** 2 / (total * expected + _SMOOTHING)
    if features < len(every):  # sorting all of them would take longer than counting
        near = score >= -np.partition(-score, features)[features]
        every, total, score = every[near], total[near], score[near]
    best = np.lexsort((every, -total, -score))[:features]
    return np.sort(every[best])
