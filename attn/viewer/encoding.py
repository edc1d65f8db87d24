"""Arrays as text: typed arrays in base64, and weights as 8-bit or 16-bit numbers."""

import base64
from typing import Any, Literal, NamedTuple

import numpy as np

Precision = Literal["uint8", "float16"]
PRECISIONS = ("uint8", "float16")


class Codes(NamedTuple):
    """Rows of weights as they are stored: a weight is code · scale / 255 for "uint8", and the code itself for "float16"."""

    codes: np.ndarray  # uint8 or float16, [.., S]
    scale: np.ndarray  # float32, [..]: the largest weight of each row


def encode(weights: np.ndarray, precision: Precision) -> Codes:
    """Encodes float64 weights `[.., S]`. With "uint8" each is off by at most 1/510 of the largest one of its row."""
    scale = weights.max(axis=-1, initial=0).astype(np.float32)
    if precision == "float16":
        return Codes(weights.astype(np.float16), scale)
    shares = weights / np.where(scale > 0, scale, 1)[..., None]
    return Codes(np.rint(255 * np.minimum(shares, 1)).astype(np.uint8), scale)


def largest(weights: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest entries along the last axis, the largest first: uint16 `[.., count]`."""
    places = np.argpartition(-weights, count - 1, axis=-1)[..., :count]
    order = np.argsort(-np.take_along_axis(weights, places, -1), axis=-1, kind="stable")
    return np.take_along_axis(places, order, -1).astype(np.uint16)


def text(array: np.ndarray) -> str:
    """The bytes of an array in little-endian order, in base64."""
    return base64.b64encode(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()).decode()


def floats(array: Any) -> str:
    """An array as float32 in base64."""
    return text(np.asarray(array, np.float32))
