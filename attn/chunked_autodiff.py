"""`attn.chunked` without a backward pass of its own: plainly differentiated, in forward mode too, still in linear memory.

Each block of queries walks over all keys in a checkpointed step (Rabe and Staats 2021, "Self-attention does not need O(n²)
memory", section 3), so reverse mode keeps one block's state for each block of keys, and no weights.
"""

import jax
import jax.numpy as jnp
from jax import lax

from attn import blocks, masks, parts, tiles
from attn.arguments import Arguments
from attn.blocks import Block, Corner
from attn.online_softmax import Rows, attend_tile, finish, start
from attn.shapes import Array


def attention(arguments: Arguments, block: Block) -> tuple[Array, Array]:
    """As `attn.chunked.attention`."""
    queries = arguments.query.shape[3]
    padded = parts.pad(arguments, block)
    padded = parts.vary(padded, padded)
    size = blocks.whole(padded)
    careful = tiles.careful(padded)
    in_piece = Block(size.batch, size.heads, block.query, block.key)

    @jax.checkpoint
    def of_queries(first_query: Array) -> tuple[Array, Array]:
        def visit(rows: Rows, first_key: Array) -> tuple[Rows, None]:
            tile, where = parts.cut(padded, Corner(query=first_query, key=first_key), in_piece)
            allowed = masks.allowed(padded, tile, where)
            return parts.unless_empty(allowed, lambda: attend_tile(rows, tile, where, allowed, careful), rows), None

        corner = Corner(query=first_query)
        rows = Rows(*(parts.part(x, "bkrt", corner, in_piece) for x in parts.vary(start(padded), padded)))
        rows, _ = lax.scan(jax.checkpoint(visit), rows, jnp.arange(0, size.key, block.key, dtype=jnp.int32))
        return finish(padded, rows)[:2]

    output, lse = lax.map(of_queries, jnp.arange(0, size.query, block.query, dtype=jnp.int32))
    output, lse = (jnp.moveaxis(x, 0, 3).reshape(*x.shape[1:4], size.query, *x.shape[5:]) for x in (output, lse))
    return output[..., :queries, :], lse[..., :queries]
