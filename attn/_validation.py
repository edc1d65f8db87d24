"""Checks that several arguments share. Each raises ValueError with one line: the argument, its value and the rule."""

import difflib
import operator
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from attn.shapes import Array


def check_name(argument: str, name: Any, names: Iterable[str]) -> str:
    """Returns `name`. Raises ValueError, with the closest of `names`, where it is not one of them."""
    names = list(names)
    if isinstance(name, str) and name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{argument}={name!r} is not one of {names}{hint}")


def as_int(number: Any) -> int | None:
    """An integer of Python, NumPy or JAX as one of Python; None for anything else, a bool and a traced number too."""
    if isinstance(number, bool | np.bool_):
        return None
    try:
        return operator.index(number)
    except TypeError:
        return None


def is_number(number: Any) -> bool:
    """Whether this is one real number of Python or NumPy, and no bool."""
    return isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)


def check_rate(argument: str, rate: Any) -> float:
    """The rate as a float. Raises ValueError unless it is a number in [0, 1), of Python or NumPy."""
    if not is_number(rate) or not 0 <= rate < 1:
        raise ValueError(f"{argument}={rate!r} must be a number in [0, 1)")
    return float(rate)


def check_positive_ints(**sizes: Any) -> None:
    """Raises ValueError for the first of the sizes that is neither a positive integer, of Python or NumPy, nor None."""
    for argument, size in sizes.items():
        number = as_int(size)
        if size is not None and (number is None or number < 1):
            raise ValueError(f"{argument}={size!r} must be a positive int")


def as_array(argument: str, array: Any) -> Array:
    """Returns `array` as a JAX array. Raises ValueError where it cannot be converted."""
    try:
        return jnp.asarray(array)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{argument}={array!r} is {type(array).__name__}: it must be an array") from None
