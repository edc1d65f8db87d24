"""Checks that several arguments share. Each raises ValueError with one line: the argument, its value and the rule."""

import difflib
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

from attn.shapes import Array


def check_name(argument: str, name: Any, names: Iterable[str]) -> str:
    """Returns `name`. Raises ValueError, with the closest of `names`, where it is not one of them."""
    names = list(names)
    if isinstance(name, str) and name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{argument}={name!r} is not one of {names}{hint}")


def check_rate(argument: str, rate: object) -> None:
    """Raises ValueError unless `rate` is a number in [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{argument}={rate!r} must be a number in [0, 1)")


def check_positive_ints(**sizes: int | None) -> None:
    """Raises ValueError for the first of the sizes that is neither a positive int nor None."""
    for argument, size in sizes.items():
        if size is not None and (type(size) is not int or size < 1):
            raise ValueError(f"{argument}={size!r} must be a positive int")


def as_array(argument: str, array: Any) -> Array:
    """Returns `array` as a JAX array. Raises ValueError where it cannot be converted."""
    try:
        return jnp.asarray(array)
    except (TypeError, ValueError):
        raise ValueError(f"{argument}={array!r} is {type(array).__name__}: it must be an array") from None
