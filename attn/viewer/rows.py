"""The weights of a layer, read some queries at a time, so that no T × S array is needed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCK = 64  # queries that are read at once: 8 MB in float64 for 4 heads and 4,096 keys
_ROUNDING = 1e-2  # by how much a row of bfloat16 may be more than 1


@dataclass(frozen=True)
class Rows:
    """The weights of a layer.

    Attributes:
      heads: the number of heads N.
      length: the number of tokens T, which are the queries and the keys.
      read: maps (start, stop) to the weights of these queries, `[N, stop − start, T]` of any real dtype. It is called with
        consecutive ranges, once each.
    """

    heads: int
    length: int
    read: Callable[[int, int], Any]

    def blocks(self, name: str) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yields (start, stop, weights), the weights as float64 `[N, stop − start, T]`.

        Raises:
          ValueError: a weight is not a number from 0 to 1, or a block has another shape. Names the layer `name` and the place.
        """
        for start in range(0, self.length, BLOCK):
            stop = min(start + BLOCK, self.length)
            block = np.asarray(self.read(start, stop), np.float64)
            if block.shape != (self.heads, stop - start, self.length):
                raise ValueError(f"{name}: weights {block.shape} must be {(self.heads, stop - start, self.length)}")
            wrong = ~((block >= 0) & (block <= 1 + _ROUNDING))
            if wrong.any():
                head, query, key = np.argwhere(wrong)[0]
                value = block[head, query, key]
                raise ValueError(f"{name}, head {head}, query {start + query}, key {key}: weight {value} is not from 0 to 1")
            yield start, stop, block


def of_array(name: str, weights: Any) -> Rows:
    """The rows of an array `[N, T, T]`, or with an axis of size 1 before. Raises ValueError for another shape."""
    array = np.asarray(weights)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or array.shape[1] != array.shape[2] or array.shape[0] < 1:
        raise ValueError(f"{name}: weights {np.shape(weights)} must be (heads, T, T): those of one text that attends to itself")
    return Rows(array.shape[0], array.shape[1], lambda start, stop: array[:, start:stop])
