"""cuDNN's flash attention, through `jax.nn.dot_product_attention`: half precision, unmasked or causal."""

import jax

from attn.kernels.inputs import Inputs
from attn.kernels.options import Options
from attn.shapes import Key, Output, Query, Value

HONOURED = ("causal",)
DTYPES = ("bfloat16", "float16")


def unsupported(query: Query, key: Key, value: Value, options: Options) -> str | None:
    """Why the kernel cannot honour these shapes, or None."""
    if options.causal and query.shape[-3] != key.shape[-3]:
        return f"does not honour causal={options.causal!r} with T={query.shape[-3]} and S={key.shape[-3]}"
    sizes = (query.shape[-1], value.shape[-1])
    if sizes[0] != sizes[1] or sizes[0] % 8 or sizes[0] > 128:
        return f"needs equal head dims, a multiple of 8 up to 128: these are {sizes[0]} and {sizes[1]}"
    return None


def attention(query: Query, key: Key, value: Value, inputs: Inputs, scale: float) -> Output:
    batched = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
    output = jax.nn.dot_product_attention(*batched, scale=scale, is_causal=inputs.has_band, implementation="cudnn")
    return output.reshape(*query.shape[:-1], value.shape[-1])
