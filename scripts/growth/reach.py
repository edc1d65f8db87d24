"""Measures the longest path: how many layers it takes until the last output has a gradient at the first input."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from scripts.growth import kinds

WIDTH = 16


def longest_path(kind: str, n: int) -> int:
    """The number of layers between the first of n inputs and the last output, which are the farthest apart.

    Layer by layer, a gradient is pulled back from the last position, at random activations. After each layer the gradient at
    each position is rescaled to length 1, which changes where it is zero nowhere, and keeps thousands of layers from an
    underflow. A layer of a recurrence is one step of its cell at all positions: it reads the state of the position before.

    Args:
      kind: one of `kinds.KINDS`.
      n: the length.
    """
    pull = _pull(kind, n)
    slopes, reached, layers = jnp.zeros((n, WIDTH)).at[-1].set(1.0), np.zeros(n, bool), 0
    while not reached[0]:
        slopes, at_inputs = pull(slopes)
        reached |= np.asarray(jnp.any(at_inputs != 0, axis=-1))
        if not bool(jnp.any(slopes)) and not reached[0]:
            raise AssertionError(f"{kind}: after {layers} layers there is no gradient any more")
        layers += 1
    return layers


def _pull(kind: str, n: int) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """From the gradient at a layer's outputs to the rescaled one at the states before it, and to that at the inputs."""
    x_rng, state_rng, init_rng = jax.random.split(jax.random.key(0), 3)
    x, state = jax.random.normal(x_rng, (n, WIDTH)), jax.random.normal(state_rng, (n, WIDTH))
    layer, apply = kinds.call(kind, WIDTH)
    if kind == "recurrence":
        cell = nn.GRUCell(WIDTH)
        params: Any = cell.init(init_rng, state, x)

        def step(state: jax.Array, x: jax.Array) -> jax.Array:
            before = jnp.concatenate([jnp.zeros((1, WIDTH)), state[:-1]])
            return cell.apply(params, before, x)[1]  # pyright: ignore[reportReturnType]
    else:
        params = kinds.initial(kind, layer, init_rng, x, x)

        def step(state: jax.Array, x: jax.Array) -> jax.Array:
            return apply(params, x, x)  # a first layer: what it reads are the inputs, and the states of one below are such too

    @jax.jit
    def pull(state: jax.Array, x: jax.Array, slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
        at_state, at_inputs = jax.vjp(step, state, x)[1](slopes)
        below = at_state if kind == "recurrence" else at_inputs
        norms = jnp.linalg.norm(below, axis=-1, keepdims=True)
        return jnp.where(norms > 0, below / jnp.where(norms > 0, norms, 1), 0), at_inputs

    return functools.partial(pull, state, x)
