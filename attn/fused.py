"""A vendor's kernel under the contract: cuDNN's on NVIDIA GPUs, splash attention on TPUs.

Each takes what it computes as the definition does, and refuses the rest by name. Where it masks, its products turn a NaN
that is hidden into a NaN that is not, so arrays with NaN or Inf are sent to the chunked kernel when the program runs. First
derivatives in reverse mode alone.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

import jax
from jax import lax

from attn.arguments import Arguments
from attn.normalizers import WITH_SINK
from attn.prepare import Options
from attn.scores import Dot, ScaledDot, resolve
from attn.shapes import Array, Key, Output, Query, Value
from attn.tiles import any_nonfinite

VENDORS = {"gpu": "attn.cudnn", "tpu": "attn.splash"}
_NAMED = ("bias", "mask", "query_lengths", "key_lengths", "query_segments", "key_segments", "window", "query_positions")
_NAMED += ("key_positions", "score_mod", "mask_mod", "sink")


def refusal(query: Query, key: Key, value: Value, options: Options, platform: str | None = None) -> str | None:
    """Why the kernel of the platform (None: the one JAX runs on) cannot honour these arguments, or None."""
    platform = platform or jax.default_backend()
    if platform not in VENDORS:
        return f"needs an NVIDIA GPU or a TPU: this is {platform}"
    vendor = _vendor(platform)
    unsupported = [name for name in _NAMED if name not in vendor.HONOURED and getattr(options, name) is not None]
    if unsupported:
        return f"does not honour {unsupported[0]}"
    if options.normalizer not in (WITH_SINK if "sink" in vendor.HONOURED else ("softmax",)):
        return f"does not honour normalizer={options.normalizer!r}"
    if options.dropout_rate:
        return f"does not honour dropout_rate={options.dropout_rate}: its bits are not ours"
    if not isinstance(resolve(options.score), Dot | ScaledDot):
        return f"does not honour score={options.score!r}"
    if options.scale is not None and not isinstance(options.scale, int | float):
        return "needs a scale that is a Python number"
    dtypes = sorted({str(array.dtype) for array in (query, key, value)})
    if len(dtypes) > 1 or dtypes[0] not in vendor.DTYPES:
        return f"needs {' or '.join(vendor.DTYPES)} alike: these are {', '.join(dtypes)}"
    return vendor.refusal(query, key, value, options)


def attention(
    query: Query,
    key: Key,
    value: Value,
    options: Options,
    arguments: Arguments,
    otherwise: Callable[[], Output],
    vendor: Callable[..., Output] | None = None,
) -> Output:
    """`otherwise` is the same attention from another kernel, for arrays with NaN or Inf; `vendor` is the platform's."""
    kernel = vendor or _vendor(jax.default_backend()).attention
    unscaled = isinstance(resolve(options.score), Dot)
    scale = options.scale if options.scale is not None else 1.0 if unscaled else query.shape[-1] ** -0.5

    def run() -> Array:
        return kernel(query, key, value, arguments, float(scale))

    if not arguments.masked:
        return run()
    suspicious = any_nonfinite([lax.stop_gradient(x) for x in (query, key, value)])
    return lax.cond(suspicious, lambda: otherwise().astype(value.dtype), run)


def _vendor(platform: str) -> ModuleType:
    return importlib.import_module(VENDORS[platform])  # when it is needed: Pallas takes a second to import
