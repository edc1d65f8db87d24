"""Measures one layer at one size, forward and backward."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.cost import flops
from scripts.growth import depth, kinds

LEAST_SECONDS, MOST_CALLS = 0.2, 20


class Row(NamedTuple):
    """What was found for one size.

    Attributes:
      kind, n, m, d: the layer, the lengths of the queries' and of the keys' sequence, and the width.
      products: the FLOPs of the matrix products of a forward pass, by the formula.
      flops: those of all its operations, counted on its jaxpr with the bodies of loops times their trip counts.
      steps: the sequential steps of a forward pass; None for a layer whose loop over tiles is a choice of the implementation.
      cpu_ms: CPU time of a forward and backward pass, over all threads of the process: the median.
      temporary_bytes: of the compiled forward and backward pass, without arguments and results.
    """

    kind: str
    n: int
    m: int
    d: int
    products: int
    flops: int
    steps: int | None
    cpu_ms: float
    temporary_bytes: int


def measure(kind: str, n: int, m: int, d: int) -> Row:
    """Measures a layer: self-attention where m = n, with one sequence for all, and cross-attention where it does not."""
    layer, apply = kinds.call(kind, d)
    x = jax.random.normal(jax.random.key(1), (n, d))
    other = x if m == n else jax.random.normal(jax.random.key(2), (m, d))
    arguments = (x,) if m == n else (x, other)
    params = kinds.initial(kind, layer, jax.random.key(0), x, other)

    def forward(params: Any, *sequences: jax.Array) -> jax.Array:
        return apply(params, sequences[0], sequences[-1])

    def loss(params: Any, *sequences: jax.Array) -> jax.Array:
        return jnp.sum(forward(params, *sequences))

    both = jax.grad(loss, argnums=tuple(range(1 + len(arguments))))

    forward_and_backward = jax.jit(both).lower(params, *arguments).compile()
    memory = forward_and_backward.memory_analysis()
    assert memory is not None, "a CPU tells it"
    return Row(
        kind,
        n,
        m,
        d,
        kinds.KINDS[kind].products(n, m, d),
        int(flops.count(forward, params, *arguments).flops),
        None if kind == "attention, chunked" else depth.sequential_steps(forward, params, *arguments),
        1e3 * cpu_seconds(lambda: forward_and_backward(params, *arguments)),
        memory.temp_size_in_bytes,
    )


def cpu_seconds(call: Callable[[], Any]) -> float:
    """The median CPU time of a call, after one that does not count. Other work on the machine takes none of it."""
    jax.block_until_ready(call())
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < LEAST_SECONDS and len(seconds) < MOST_CALLS):
        started = time.process_time()
        jax.block_until_ready(call())
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)
