"""The chunked kernel without a backward pass of its own: JAX differentiates it, in forward mode too, in linear memory.

Each block of queries visits all keys in a checkpointed step (Rabe and Staats 2021, "Self-attention does not need O(n²)
memory", section 3), so reverse mode keeps one state of the online softmax for each block of keys, and no weights.
"""

import jax
import jax.numpy as jnp
from jax import lax

from attn.kernels.chunked.forward import OnlineSoftmax, add_keys, finish, initial_state
from attn.kernels.inputs import Inputs
from attn.kernels.manual_axes import match_varying
from attn.kernels.tiles.loop import skip_if_masked
from attn.kernels.tiles.mask import tile_mask
from attn.kernels.tiles.products import find_masked_nonfinite
from attn.kernels.tiles.slices import pad_to_blocks, slice_array, slice_tile
from attn.kernels.tiles.tiling import Block, Offset, full_block
from attn.shapes import Array


def attention(inputs: Inputs, block: Block) -> tuple[Array, Array]:
    """The output `[B, K, R, T, V]` and the log-sum-exp `[B, K, R, T]` of the keys alone, without the sink."""
    queries = inputs.query.shape[3]
    padded = pad_to_blocks(inputs, block)
    padded = match_varying(padded, padded)
    size = full_block(padded)
    masked_nonfinite = find_masked_nonfinite(padded)
    all_heads = size._replace(query=block.query, key=block.key)

    @jax.checkpoint
    def query_block(first_query: Array) -> tuple[Array, Array]:
        def visit(state: OnlineSoftmax, first_key: Array) -> tuple[OnlineSoftmax, None]:
            tile, indices = slice_tile(padded, Offset(query=first_query, key=first_key), all_heads)
            allowed = tile_mask(padded, tile, indices)
            known = allowed if inputs.devices == 1 or not inputs.has_runtime_mask else None  # see `runtime_mask`
            return skip_if_masked(known, lambda: add_keys(state, tile, indices, allowed, masked_nonfinite), state), None

        offset = Offset(query=first_query)
        initial = match_varying(initial_state(padded), padded)
        state = OnlineSoftmax(*(slice_array(x, "bkrt", offset, all_heads) for x in initial))
        state, _ = lax.scan(jax.checkpoint(visit), state, _starts(size.key, block.key))
        return finish(padded, state)[:2]

    output, lse = lax.map(query_block, _starts(size.query, block.query))
    output, lse = (jnp.moveaxis(x, 0, 3).reshape(*x.shape[1:4], size.query, *x.shape[5:]) for x in (output, lse))
    return output[..., :queries, :], lse[..., :queries]


def _starts(length: int, tile: int) -> Array:
    return jnp.arange(length // tile, dtype=jnp.int32) * tile
