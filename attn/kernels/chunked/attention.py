"""The definition tile by tile: linear memory forward and backward, equal to `dense` up to rounding.

One loop visits the tiles. Tiles that causality or the window leave empty are not in its list; tiles that other masks leave
empty are skipped when the program runs. First derivatives in reverse mode, and forward over reverse; `jax.jvp` needs
`attn.kernels.chunked.autodiff`.
"""

from collections.abc import Callable

import jax

from attn.kernels.chunked.backward import backward
from attn.kernels.chunked.forward import Normalization, forward
from attn.kernels.forward_mode import forbid_forward_mode
from attn.kernels.inputs import Inputs
from attn.kernels.manual_axes import match_varying
from attn.kernels.tiles.slices import pad_to_blocks
from attn.kernels.tiles.tiling import Block
from attn.shapes import Array

_Residuals = tuple[Inputs, Array, Normalization]


def unsupported(inputs: Inputs) -> str | None:
    """Why these inputs cannot be computed tile by tile, or None."""
    if inputs.normalizer in ("softmax", "softmax1", "sigmoid"):
        return None
    return f"does not honour normalizer={inputs.normalizer!r}, which sorts whole rows: only 'dense' does"


def attention(inputs: Inputs, block: Block) -> tuple[Array, Array]:
    """The output `[B, K, R, T, V]` and the log-sum-exp `[B, K, R, T]` of the keys alone, without the sink."""
    queries = inputs.query.shape[3]
    padded = forbid_forward_mode(pad_to_blocks(inputs, block))
    output, lse = _attention(block, match_varying(padded, padded))
    return output[..., :queries, :], lse[..., :queries]


def _forward(block: Block, inputs: Inputs) -> tuple[tuple[Array, Array], _Residuals]:
    output, lse, normalization = forward(inputs, block)
    return (output, lse), (inputs, output, normalization)


def _backward(block: Block, residuals: _Residuals, cotangents: tuple[Array, Array]) -> tuple[Inputs]:
    return (backward(block, *residuals, *cotangents),)


_attention: Callable[[Block, Inputs], tuple[Array, Array]]
_attention = jax.custom_vjp(lambda block, inputs: _forward(block, inputs)[0], nondiff_argnums=(0,))
_attention.defvjp(_forward, _backward)
