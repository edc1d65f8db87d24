"""Dropout as a function, which one call of a model hands to all its parts."""

from collections.abc import Callable

from flax import linen as nn

from attn.layers.dense import Dropout
from attn.shapes import Array

Drop = Callable[[Array], Array]


def kept(x: Array) -> Array:
    """No dropout."""
    return x


def dropping(model: nn.Module, rate: float, in_place: Array | None, deterministic: bool) -> Drop:
    """Returns the dropout of a model, each call of which takes another key of the rng named "dropout".

    Args:
      model: the model.
      rate: that of its config.
      in_place: a scalar array in place of it, without effect if it is 0.
      deterministic: whether there is none.
    """
    if deterministic or rate == 0:
        return kept
    layer = Dropout(rate if in_place is None else in_place, False, parent=None)
    return lambda x: layer.apply({}, x, rngs={"dropout": model.make_rng("dropout")})  # type: ignore[return-value]
