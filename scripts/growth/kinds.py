"""The layers that are compared, and what theory says of them (Vaswani et al. 2017, table 1)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from attn.layers.keras import MultiHeadAttention
from attn.models.bodies import Convolution, Recurrence

KERNEL = 5


class Kind(NamedTuple):
    """A kind of layer.

    Attributes:
      layer: from the width d to the layer, which maps `[n, d]` to `[n, d]`; attention takes a second sequence.
      products: from n (of the queries), m (of the keys) and d to the FLOPs of the matrix products.
      order: the order of the FLOPs in n and d; self-attention also has the O(n d²) of its projections.
      steps: the order of the sequential steps.
      path: the order of the longest path.
    """

    layer: Callable[[int], nn.Module]
    products: Callable[[int, int, int], int]
    order: str
    steps: str
    path: str


def _attention(implementation: str) -> Callable[[int], nn.Module]:
    options: dict[str, Any] = {"attention_axes": -2, "implementation": implementation}
    return lambda d: MultiHeadAttention(num_heads=1, key_dim=d, **options)


def _of_attention(n: int, m: int, d: int) -> int:
    """Query and output are projected n times, key and value m times, and each of the n · m pairs is in two products."""
    return 4 * n * d * d + 4 * m * d * d + 4 * n * m * d


_ORDERS = "O(n² d)", "O(1)", "O(1)"
KINDS = {
    "convolution": Kind(
        lambda d: Convolution(d, KERNEL), lambda n, m, d: 2 * KERNEL * n * d * d, "O(k n d²)", "O(1)", "O(n / k)"
    ),
    "recurrence": Kind(lambda d: Recurrence(d, "gru"), lambda n, m, d: 12 * n * d * d, "O(n d²)", "O(n)", "O(n)"),
    "attention, dense": Kind(_attention("dense"), _of_attention, *_ORDERS),
    "attention, chunked": Kind(_attention("chunked"), _of_attention, *_ORDERS),
}


def call(kind: str, d: int) -> tuple[nn.Module, Callable[..., jax.Array]]:
    """The layer of a width, and a function (params, x `[n, d]`, other `[m, d]`) -> `[n, d]`, which may not read `other`."""
    layer = KINDS[kind].layer(d)
    if _reads_two(kind):
        return layer, lambda params, x, other: layer.apply(params, x, other)  # pyright: ignore[reportReturnType]
    return layer, lambda params, x, other: layer.apply(params, x)  # pyright: ignore[reportReturnType]


def initial(kind: str, layer: nn.Module, rng: jax.Array, x: jax.Array, other: jax.Array) -> Any:
    """The parameters of a layer for sequences of these shapes."""
    return layer.init(rng, x, other) if _reads_two(kind) else layer.init(rng, x)


def _reads_two(kind: str) -> bool:
    return kind.startswith("attention")
