"""Flags that a layer takes as a field or as an argument of its call.

linen's lifts make arguments dynamic: `nn.remat` and `nn.jit` trace them, and `nn.vmap` and `nn.scan` drop keyword arguments,
with a warning. Fields are static. So a flag in the call of a lifted layer is moved to the field of the layer inside, and so are
positions, which hold functions. Other keyword arguments, such as masks, are passed by position.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.core import Tracer

from attn._validation import check_name
from attn.kernels.selection import IMPLEMENTATIONS
from attn.shapes import Array

Flag = bool | Array
FIELDS = ("deterministic", "use_causal_mask", "position")


class WithFlags(nn.Module, kw_only=True):
    """The base of the layers with dropout.

    Attributes:
      deterministic: whether dropout is off; given here or in the call, not in both. Where it is given nowhere, it is.

    Raises:
      ValueError: at construction, for a flag that is no bool.
    """

    deterministic: bool | None = None

    def __post_init__(self) -> None:
        for name in ("deterministic", "use_causal_mask"):
            if getattr(self, name, None) is not None:
                setattr(self, name, _checked(name, getattr(self, name)))
        super().__post_init__()

    def __init_subclass__(cls, **options: Any) -> None:
        if cls.__module__ == "flax.linen.transforms":  # the class of a lifted layer
            for name, method in list(vars(cls).items()):
                if callable(method):
                    setattr(cls, name, _with_static_fields(method))
        super().__init_subclass__(**options)


def _with_static_fields(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a lifted layer that passes its flags as fields, and its other arguments by position.

    Raises:
      TypeError: a keyword argument without a position in a lift that would drop it.
      ValueError: positions in a lift that would mix up their functions.
    """
    ordered = [
        parameter.name
        for parameter in inspect.signature(method).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ][1:]

    @functools.wraps(method)
    def call(layer: nn.Module, *arguments: Any, **named: Any) -> Any:
        fields = {name: getattr(layer, name) for name in FIELDS if name in named and hasattr(layer, name)}
        given = {name: resolve(layer, name, named.pop(name), None) for name in fields}
        last = max((ordered.index(name) for name in named if name in ordered), default=-1)
        arguments += tuple(named.pop(name, None) for name in ordered[len(arguments) : last + 1])
        # nn.jit tells fields apart by their hash, which for a function is its address, and addresses are used again.
        if given.get("position") is not None and type(layer).__name__.startswith("Jit"):
            raise ValueError(
                "position holds functions: nn.jit may go on with those of an earlier call; use jax.jit, or nn.remat"
            )
        if named and (lift := type(layer).__name__[:4]) in ("Vmap", "Scan"):
            raise TypeError(
                f"nn.{lift.lower()} drops the keyword argument {next(iter(named))!r}: pass it by position or in a field"
            )
        try:
            for name, value in given.items():
                object.__setattr__(layer, name, value)
            return method(layer, *arguments, **named)
        finally:
            for name, value in fields.items():
                object.__setattr__(layer, name, value)

    return call


def resolve(layer: nn.Module, name: str, argument: Any, otherwise: Any) -> Any:
    """The flag of this name: the layer's field, or the argument, or `otherwise`.

    Raises:
      ValueError: both are given, or the argument is a flag that is no bool.
    """
    field = getattr(layer, name)
    if name != "position":
        argument = _checked(name, argument)
    if field is not None and argument is not None:
        raise ValueError(f"{name}={argument!r} in the call of {type(layer).__name__}(…, {name}={field!r}): give one of them")
    return otherwise if field is argument is None else argument if field is None else field


def _checked(name: str, flag: Any) -> Flag | None:
    """The flag as a bool of Python, or traced. Raises ValueError for anything else."""
    if flag is None or isinstance(flag, bool | Tracer):
        return flag
    if isinstance(flag, np.bool_ | jax.Array | np.ndarray) and flag.dtype == bool and flag.shape == ():
        return bool(flag)
    raise ValueError(f"{name}={flag!r} must be True or False")


def resolve_deterministic(layer: WithFlags, argument: Flag | None) -> Flag:
    """Whether dropout is off."""
    return resolve(layer, "deterministic", argument, otherwise=True)


def with_dropout(layer: WithFlags, rate: float, deterministic: Flag, run: Callable[[dict[str, Any]], Array]) -> Array:
    """`run(options)`, where the options are the rate and the random key of dropout, or none where dropout is off.

    Raises:
      ValueError: dropout is on, or may be, and the rng named "dropout" is missing.
    """
    traced = isinstance(deterministic, jax.Array)
    if not rate or (not traced and deterministic):
        return run({})
    if not (layer.has_rng("dropout") or layer.has_rng("params")):
        if traced:
            raise ValueError("deterministic is traced: without the rng named 'dropout' it must be static, such as a field")
        raise ValueError("deterministic=False needs the rng named 'dropout': layer.apply(..., rngs={'dropout': rng})")
    options = {"dropout_rate": rate, "dropout_rng": layer.make_rng("dropout")}
    return lax.cond(deterministic, lambda: run({}), lambda: run(options)) if traced else run(options)


def check_implementation(implementation: str) -> None:
    """Raises ValueError for the name of an implementation that does not exist."""
    check_name("implementation", implementation, ("auto", *IMPLEMENTATIONS))


def check_dtype(dtype: Any) -> None:
    """Raises ValueError for what is neither None nor a floating point dtype."""
    try:
        floating = dtype is None or jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(f"dtype={dtype!r} must be a floating point dtype, or None")
