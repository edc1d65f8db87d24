"""A vendor's kernel under the contract: cuDNN's flash attention through `jax.nn.dot_product_attention`.

It takes what it computes as the definition does: unmasked or causal softmax of dot products, in half precision, on an
NVIDIA GPU. Where causality hides some keys, its products turn a NaN that is hidden into a NaN that is not, so arrays with
NaN or Inf are sent to the chunked kernel when the program runs. There is no kernel for TPUs here yet.
"""

from collections.abc import Callable

import jax
from jax import lax

from attn.prepare import Options
from attn.scores import Dot, ScaledDot, resolve
from attn.shapes import Array, Key, Output, Query, Value
from attn.tiles import any_nonfinite

_UNSUPPORTED = [
    "bias",
    "mask",
    "query_lengths",
    "key_lengths",
    "query_segments",
    "key_segments",
    "window",
    "query_positions",
    "key_positions",
    "score_mod",
    "mask_mod",
    "sink",
]


def refusal(query: Query, key: Key, value: Value, options: Options) -> str | None:
    """Why the kernel cannot honour these arguments, or None."""
    if jax.default_backend() != "gpu":
        return f"needs an NVIDIA GPU: this is {jax.default_backend()}"
    named = [name for name in _UNSUPPORTED if getattr(options, name) is not None]
    if named:
        return f"does not honour {named[0]}"
    if options.normalizer != "softmax":
        return f"does not honour normalizer={options.normalizer!r}"
    if options.dropout_rate:
        return f"does not honour dropout_rate={options.dropout_rate}: its bits are not ours"
    if not isinstance(resolve(options.score), Dot | ScaledDot):
        return f"does not honour score={options.score!r}"
    if options.scale is not None and not isinstance(options.scale, int | float):
        return "needs a scale that is a Python number"
    if options.causal and query.shape[-3] != key.shape[-3]:
        return f"does not honour causal={options.causal!r} with T={query.shape[-3]} and S={key.shape[-3]}"
    dtypes = {str(array.dtype) for array in (query, key, value)}
    if dtypes not in ({"bfloat16"}, {"float16"}):
        return f"needs bfloat16 or float16 alike: these are {', '.join(sorted(dtypes))}"
    sizes = (query.shape[-1], value.shape[-1])
    if sizes[0] != sizes[1] or sizes[0] % 8 or sizes[0] > 128:
        return f"needs equal head dims, a multiple of 8 up to 128: these are {sizes[0]} and {sizes[1]}"
    return None


def attention(query: Query, key: Key, value: Value, options: Options, otherwise: Callable[[], Output]) -> Output:
    """`otherwise` is the same attention from another kernel, for arrays with NaN or Inf."""
    unscaled = isinstance(resolve(options.score), Dot)
    scale = options.scale if options.scale is not None else 1.0 if unscaled else query.shape[-1] ** -0.5

    def kernel() -> Array:
        batched = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        output = jax.nn.dot_product_attention(
            *batched, scale=float(scale), is_causal=bool(options.causal), implementation="cudnn"
        )
        return output.reshape(*query.shape[:-1], value.shape[-1])

    if not options.causal:
        return kernel()
    suspicious = any_nonfinite([lax.stop_gradient(x) for x in (query, key, value)])
    return lax.cond(suspicious, lambda: otherwise().astype(value.dtype), kernel)
