"""A vendor's kernel under the contract: cuDNN's on NVIDIA GPUs, splash attention on TPUs.

Each vendor module lists what it honours; everything else is refused by name. Where such a kernel masks, a NaN that is masked
becomes a NaN in the output, so inputs with NaN or Inf go to the chunked kernel, decided when the program runs. First
derivatives in reverse mode only.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

import jax
from jax import lax

from attn._validation import is_number
from attn.kernels.inputs import Inputs
from attn.kernels.options import Options
from attn.kernels.tiles.products import any_nonfinite
from attn.normalizers import WITH_SINK
from attn.scores import Dot, ScaledDot, resolve
from attn.shapes import Array, Key, Output, Query, Value

VENDORS = {"gpu": "attn.kernels.fused.cudnn", "tpu": "attn.kernels.fused.splash"}
_NAMED = ("bias", "mask", "query_lengths", "key_lengths", "query_segments", "key_segments", "window", "query_positions")
_NAMED += ("key_positions", "score_mod", "mask_mod", "sink")


def unsupported(query: Query, key: Key, value: Value, options: Options, platform: str | None = None) -> str | None:
    """Why the kernel of the platform (None: the one JAX runs on) cannot honour these arguments, or None."""
    platform = platform or jax.default_backend()
    if platform not in VENDORS:
        return f"needs an NVIDIA GPU or a TPU: this is {platform}"
    vendor = _vendor(platform)
    refused = [name for name in _NAMED if name not in vendor.HONOURED and getattr(options, name) is not None]
    if refused:
        return f"does not honour {refused[0]}"
    if options.normalizer not in (WITH_SINK if "sink" in vendor.HONOURED else ("softmax",)):
        return f"does not honour normalizer={options.normalizer!r}"
    if options.dropout_rate:
        return f"does not honour dropout_rate={options.dropout_rate}: its random bits are not those of attn.dropout"
    if not isinstance(resolve(options.score), Dot | ScaledDot):
        return f"does not honour score={options.score!r}"
    if options.scale is not None and not is_number(options.scale):
        return "needs a scale that is a Python number"
    dtypes = sorted({str(array.dtype) for array in (query, key, value)})
    if len(dtypes) > 1 or dtypes[0] not in vendor.DTYPES:
        return f"needs query, key and value of one dtype, {' or '.join(vendor.DTYPES)}: these are {', '.join(dtypes)}"
    return vendor.unsupported(query, key, value, options)


def attention(
    query: Query,
    key: Key,
    value: Value,
    options: Options,
    inputs: Inputs,
    fallback: Callable[[], Output],
    vendor: Callable[..., Output] | None = None,
) -> Output:
    """The output of the vendor's kernel.

    Args:
      fallback: computes the same attention with another kernel, for inputs with NaN or Inf.
      vendor: the kernel; None takes the platform's.
    """
    kernel = vendor or _vendor(jax.default_backend()).attention
    unscaled = isinstance(resolve(options.score), Dot)
    scale = options.scale if options.scale is not None else 1.0 if unscaled else query.shape[-1] ** -0.5

    def run() -> Array:
        return kernel(query, key, value, inputs, float(scale))

    if not inputs.has_mask:
        return run()
    nonfinite = any_nonfinite([lax.stop_gradient(x) for x in (query, key, value)])
    return lax.cond(nonfinite, lambda: fallback().astype(value.dtype), run)


def _vendor(platform: str) -> ModuleType:
    return importlib.import_module(VENDORS[platform])  # imported only when needed: Pallas takes a second
