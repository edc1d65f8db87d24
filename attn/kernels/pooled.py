"""The weighted mean of attention over its queries, from a single tile that holds everything.

Σ_t w_t Σ_s p_ts v_s = Σ_s (Σ_t w_t p_ts) v_s: the values are multiplied by one row of weights for each head, not by T rows.
Backward, all queries receive the same gradient up to the factor w_t, so the gradient of the weights is one row too. Of the
two products of T × S numbers in the forward pass one remains, and of the five in the backward pass three.
"""

import jax
import jax.numpy as jnp

from attn.kernels import differentiation
from attn.kernels.chunked import attention as chunked
from attn.kernels.inputs import Inputs
from attn.kernels.manual_axes import match_varying
from attn.kernels.tiles.dropout import apply_dropout, dropout_factor
from attn.kernels.tiles.gradients import Gradients, as_cotangent, logits_vjp
from attn.kernels.tiles.logits import mask_logits, tile_logits
from attn.kernels.tiles.mask import tile_mask
from attn.kernels.tiles.slices import slice_tile
from attn.kernels.tiles.tiling import Offset, choose_block, full_block
from attn.normalizers import exponentials
from attn.shapes import Array, Tile


def unsupported(inputs: Inputs) -> str | None:
    """Why the mean of these must be computed from the outputs, or None."""
    if (why := chunked.unsupported(inputs)) is not None:
        return why
    if inputs.has_pairwise_mask:
        return "does not honour a mask that differs between queries, which keeps NaN from some queries and not from others"
    if choose_block(inputs, None) != full_block(inputs):
        return "needs everything in one tile"
    return None


def attention(inputs: Inputs, query_weights: Array) -> Array:
    """`[B, K, R, V]` for `query_weights` `[B, T]`; a query of weight 0 must be finite."""
    both = inputs, query_weights
    return differentiation.apply(_KERNEL, None, match_varying(both, both))


def _forward(inputs: Inputs, query_weights: Array) -> tuple[Array, Array]:
    tile, indices = slice_tile(inputs, Offset(), full_block(inputs))
    weights, norm, _ = _unnormalized_weights(inputs, tile_logits(tile, indices, tile_mask(inputs, tile, indices), None))
    received = jnp.einsum("bkrt,bkrts->bkrs", query_weights[:, None, None] / norm, apply_dropout(tile, indices, weights))
    return jnp.einsum("bkrs,bksv->bkrv", received, tile.value), received


def _backward(inputs: Inputs, query_weights: Array, received: Array, gradient: Array) -> tuple[Inputs, Array]:
    tile, indices = slice_tile(inputs, Offset(), full_block(inputs))
    allowed = tile_mask(inputs, tile, indices)
    logits, pull = logits_vjp(tile, indices, allowed, None)
    weights, norm, sink_weight = _unnormalized_weights(inputs, mask_logits(logits, allowed))
    factor = dropout_factor(tile, indices)
    if allowed is not None:  # where no query has a key, the gradient is 0, even if it comes back as NaN
        gradient = jnp.where(jnp.any(allowed, axis=(-2, -1))[..., None], gradient, 0)
    # The gradient of each query's weights is this row times the query's entry of query_weights.
    weight_gradient = jnp.einsum("bkrv,bksv->bkrs", gradient, tile.value)
    mean = jnp.einsum("bkrts,bkrs->bkrt", weights if factor is None else weights * factor, weight_gradient) / norm
    rows, columns = (query_weights[:, None, None] / norm)[..., None], weight_gradient[..., None, :]
    columns = columns if factor is None else columns * factor
    if inputs.normalizer == "sigmoid":
        logit_gradient = weights * (1 - weights) * rows * columns
    else:
        logit_gradient = weights * (rows * (columns - mean[..., None]))
    query, key, *rest = pull(logit_gradient if allowed is None else jnp.where(allowed, logit_gradient, 0))
    value = jnp.einsum("bkrs,bkrv->bksv", received, gradient)
    sink = None if sink_weight is None else -jnp.sum(sink_weight / norm * query_weights[:, None, None] * mean, axis=(0, 3))
    cotangent = as_cotangent(inputs, Gradients(query, key, value, *rest), sink)
    return cotangent, jnp.sum(mean, axis=(1, 2)).astype(query_weights.dtype)


_KERNEL = differentiation.Kernel(
    forward=lambda _, both: _forward(*both),
    backward=lambda _, both, received, gradient: _backward(both[0], both[1], received, gradient),
    twin=lambda _, both: _forward(*both)[0],
)


def _unnormalized_weights(inputs: Inputs, logits: Tile) -> tuple[Tile, Array, Array | None]:
    """The weights of the keys times their row's norm, that norm `[B, K, R, T]`, and the same of the sink."""
    if inputs.normalizer == "sigmoid":
        weights = jax.nn.sigmoid(logits)
        return weights, jnp.ones_like(weights[..., 0]), None
    sink = None if inputs.sink is None else inputs.sink[None, :, :, None, None].astype(logits.dtype)
    weights, total, sink_weight = exponentials(logits, sink)
    return weights, total[..., 0], None if sink_weight is None else sink_weight[..., 0]
