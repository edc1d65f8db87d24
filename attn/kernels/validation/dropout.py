"""The rate, the random key and the index offset of dropout."""

from typing import Any

import jax.numpy as jnp

from attn import dropout
from attn._integers import LARGEST
from attn._validation import as_int, check_rate
from attn.kernels.options import Options


def dropout_inputs(options: Options) -> dict[str, Any]:
    """The fields of `Inputs` for dropout; none without dropout."""
    rate = check_rate("dropout_rate", options.dropout_rate)
    if rate == 0:
        return {}
    if options.dropout_rng is None:
        raise ValueError(f"dropout_rate={rate} needs dropout_rng, a key of jax.random")
    try:
        rng = dropout.words(options.dropout_rng)
    except (TypeError, ValueError):
        raise ValueError(f"dropout_rng={options.dropout_rng!r} must be one key of jax.random") from None
    offset = options.dropout_offset if isinstance(options.dropout_offset, tuple) else (options.dropout_offset, 0)
    if len(offset) != 2 or not all(map(_is_index, offset)):
        raise ValueError(f"dropout_offset={options.dropout_offset!r} must be an integer, or two of them: (batch, head)")
    return {
        "rng": rng,
        "index_offset": jnp.stack([jnp.asarray(n, jnp.int32) for n in offset]),
        "dropout_rate": rate,
    }


def _is_index(number: Any) -> bool:
    if (known := as_int(number)) is not None:
        return 0 <= known <= LARGEST
    return hasattr(number, "dtype") and number.shape == () and jnp.issubdtype(number.dtype, jnp.integer)
