"""The definition tile by tile: linear memory forward and backward, equal to `dense` up to rounding.

One loop visits the tiles. Tiles that causality or the window leave empty are not in its list; tiles that other masks leave
empty are skipped when the program runs. Reverse mode has a backward pass of its own; forward mode differentiates the twin
`attn.kernels.chunked.autodiff`.
"""

from attn.kernels import differentiation
from attn.kernels.chunked import autodiff
from attn.kernels.chunked.backward import backward
from attn.kernels.chunked.forward import Normalization, forward
from attn.kernels.inputs import Inputs
from attn.kernels.manual_axes import match_varying
from attn.kernels.tiles.slices import pad_to_blocks
from attn.kernels.tiles.tiling import Block
from attn.shapes import Array


def unsupported(inputs: Inputs) -> str | None:
    """Why these inputs cannot be computed tile by tile, or None."""
    if inputs.normalizer in ("softmax", "softmax1", "sigmoid"):
        return None
    return f"does not honour normalizer={inputs.normalizer!r}, which sorts whole rows: only 'dense' does"


def attention(inputs: Inputs, block: Block) -> tuple[Array, Array]:
    """The output `[B, K, R, T, V]` and the log-sum-exp `[B, K, R, T]` of the keys alone, without the sink."""
    queries = inputs.query.shape[3]
    padded = pad_to_blocks(inputs, block)
    output, lse = differentiation.apply(_KERNEL, block, match_varying(padded, padded))
    return output[..., :queries, :], lse[..., :queries]


def _forward(block: Block, inputs: Inputs) -> tuple[tuple[Array, Array], tuple[Array, Normalization]]:
    output, lse, normalization = forward(inputs, block)
    return (output, lse), (output, normalization)


def _backward(block: Block, inputs: Inputs, residuals: tuple[Array, Normalization], cotangents: tuple[Array, Array]) -> Inputs:
    return backward(block, inputs, *residuals, *cotangents)


_KERNEL = differentiation.Kernel(
    _forward,
    _backward,
    twin=lambda block, inputs: autodiff.attention(inputs, block),
)
