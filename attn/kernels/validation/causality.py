"""Causality and the window: which distances from a query to a key are allowed."""

import jax.numpy as jnp
import numpy as np

from attn._integers import LARGEST
from attn._validation import as_int, check_name
from attn.kernels.options import Options, Sizes
from attn.shapes import Array

ALIGNMENTS = ("top_left", "bottom_right")


def causal_offset(options: Options, sizes: Sizes) -> tuple[bool, int]:
    """Whether attention is causal, and the position of query 0 where key 0 has position 0."""
    causal = options.causal
    if isinstance(causal, bool | np.bool_) or causal is None:
        causal = bool(causal)
    if causal is False:
        return False, 0
    if causal is True:
        if not options.has_positions and sizes.T != sizes.S:
            raise ValueError(
                f"causal=True with T={sizes.T} and S={sizes.S}: name an alignment, {' or '.join(map(repr, ALIGNMENTS))}"
            )
        return True, 0
    if not isinstance(causal, str):
        raise ValueError(f"causal={causal!r} must be True, False or an alignment, {' or '.join(map(repr, ALIGNMENTS))}")
    check_name("causal", causal, ALIGNMENTS)
    if options.has_positions:
        raise ValueError(f"causal={causal!r} with positions: positions define the alignment already; pass causal=True")
    return True, sizes.S - sizes.T if causal == "bottom_right" else 0


def aligned_positions(options: Options, lengths: dict[str, Array], sizes: Sizes) -> dict[str, Array]:
    """Where "bottom_right" goes by lengths, the positions of the queries: the last real one is at the last real key.

    As in FlashAttention, whose causal mask is aligned to the lengths of each sequence, of the cache in a decoding step
    (`cache_seqlens`) or of packed sequences (`cu_seqlens`), and not to the arrays that hold them.
    """
    if options.causal != "bottom_right" or not lengths:
        return {}
    ends = {"query_lengths": sizes.T, "key_lengths": sizes.S}
    query, key = (
        jnp.minimum(lengths[name], end) if name in lengths else jnp.asarray(end, jnp.int32) for name, end in ends.items()
    )
    first = jnp.broadcast_to(key - query, (sizes.B,))
    return {"query_positions": first[:, None] + jnp.arange(sizes.T, dtype=jnp.int32)[None]}


def window_sides(options: Options, causal: bool, sizes: Sizes) -> tuple[int | None, int | None]:
    """How far before and after a query's position its keys may be; causal attention allows none after it."""
    window = options.window
    if window is None:
        return None, 0 if causal else None
    given = tuple(window) if isinstance(window, tuple | list) else ()
    sides = tuple(map(as_int, given))
    if len(sides) != 2 or any(x is not None and (side is None or side < 0) for x, side in zip(given, sides, strict=True)):
        raise ValueError(f"window={window!r} must be (left, right), each None or an int of at least 0")
    if not (causal or options.has_positions) and sizes.T != sizes.S:
        raise ValueError(
            f"window={window!r} with T={sizes.T} and S={sizes.S}: name an alignment with causal, or pass positions"
        )
    left, right = (None if side is None or side >= LARGEST else side for side in sides)
    return (left, 0) if causal else (left, right)
