"""The backward pass tile by tile: the weights of a tile are computed again from the maximum and the sum of each row.

FlashAttention (Dao et al. 2022, algorithm 4) stores their log-sum-exp instead. Its rounding error grows with the scores, and
where one weight is near 1, the gradients that remain are mostly that error: at scores of 1,000 they were 43% off.
"""

import jax
import jax.numpy as jnp

from attn.kernels.chunked.forward import Normalization, runtime_mask
from attn.kernels.inputs import Inputs
from attn.kernels.tiles.dropout import dropout_factor
from attn.kernels.tiles.gradients import (
    GRADIENT_AXES,
    Gradients,
    as_cotangent,
    logits_vjp,
    sum_channels,
    sum_over_queries,
    zero_gradients,
)
from attn.kernels.tiles.indices import TileIndices
from attn.kernels.tiles.loop import for_each_tile, skip_if_masked
from attn.kernels.tiles.mask import tile_mask
from attn.kernels.tiles.products import MaskedNonfinite, contract, find_masked_nonfinite
from attn.kernels.tiles.slices import slice_array, slice_tile
from attn.kernels.tiles.tiling import Block, Offset
from attn.shapes import Allowed, Array


def backward(
    block: Block, inputs: Inputs, output: Array, normalization: Normalization, gradient: Array, lse_gradient: Array
) -> Inputs:
    """The cotangent of the inputs, from the gradients of the output and of the log-sum-exp."""
    empty = normalization.keys_total == 0
    gradient = jnp.where(empty[..., None], 0, gradient)
    mean = sum_channels(gradient * output)
    keys_total = jnp.where(empty, 1, normalization.keys_total)
    shift = mean - jnp.where(empty, 0, lse_gradient * normalization.total / keys_total)
    # The division is done here, once for each row, so that the exponentials of a tile can be used in place of its weights.
    gradient, shift = gradient / normalization.total[..., None], shift / normalization.total
    masked_nonfinite = find_masked_nonfinite(inputs, gradient)
    zeros = zero_gradients(inputs)

    def visit(sums: Gradients, offset: Offset) -> Gradients:
        tile, indices = slice_tile(inputs, offset, block)
        allowed = tile_mask(inputs, tile, indices)
        rows = [slice_array(x, "bkrt", offset, block) for x in (gradient, normalization.highest, shift)]
        update = skip_if_masked(
            runtime_mask(inputs, allowed, block), lambda: _tile_gradients(tile, indices, allowed, masked_nonfinite, *rows)
        )
        return jax.tree.map(lambda total, part: total + part.astype(total.dtype), sums, update)

    sums = for_each_tile(inputs, block, visit, zeros, GRADIENT_AXES)
    sink = None
    if inputs.sink is not None:
        sink_weights = jnp.exp(inputs.sink[None, :, :, None].astype(inputs.dtype) - normalization.highest) / normalization.total
        sink = -jnp.sum(sink_weights * mean, axis=(0, 3))
    return as_cotangent(inputs, sums, sink)


def _tile_gradients(
    tile: Inputs,
    indices: TileIndices,
    allowed: Allowed | None,
    masked_nonfinite: MaskedNonfinite,
    gradient: Array,
    highest: Array,
    shift: Array,
) -> Gradients:
    logits, pull = logits_vjp(tile, indices, allowed, masked_nonfinite)
    factor = dropout_factor(tile, indices)
    weight_gradient = contract("bkrts", "bkrtc", gradient, "bksc", tile.value, None, None)
    weight_gradient = weight_gradient if factor is None else weight_gradient * factor
    if tile.normalizer == "sigmoid":
        weights = jax.nn.sigmoid(logits)
        logit_gradient = weights * (1 - weights) * weight_gradient
    else:
        weights = jnp.exp(logits - highest[..., None])
        logit_gradient = weights * (weight_gradient - shift[..., None])
    if allowed is not None:
        weights, logit_gradient = (jnp.where(allowed, x, 0) for x in (weights, logit_gradient))
    weights = weights if factor is None else weights * factor
    value = sum_over_queries(weights, gradient, allowed, masked_nonfinite)
    query, key, *rest = pull(logit_gradient)
    return Gradients(query, key, value, *rest)
