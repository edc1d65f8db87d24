"""The contenders of `scripts/bench_attention.py`. A step is attention forward and backward, on the same arrays for all."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import attn

Step = Callable[[], None]


class Sizes(NamedTuple):
    B: int
    N: int
    T: int  # also S
    H: int


def on_cpu(sizes: Sizes, dtype: str) -> dict[str, Step]:
    steps = {
        "ours, sharded": in_jax(sizes, dtype, attn.attend, sharded=True),
        "ours": in_jax(sizes, dtype, attn.attend),
        "dense, sharded": in_jax(sizes, dtype, _dense, sharded=True),
        "dense": in_jax(sizes, dtype, _dense),
        "jax.nn, sharded": in_jax(sizes, dtype, jax.nn.dot_product_attention, sharded=True),
    }
    return steps | ({"torch": in_torch(sizes, dtype)} if importlib.util.find_spec("torch") else {})


def on_accelerator(sizes: Sizes, dtype: str) -> dict[str, Step]:
    """The contenders without a score_mod and with ALiBi. The kernels of cuDNN and flash attention need half precision."""
    alibi = functools.partial(attn.attend, score_mod=attn.score_mods.alibi(sizes.N))
    steps = {
        "ours": in_jax(sizes, dtype, attn.attend),
        "ours, chunked": in_jax(sizes, dtype, functools.partial(attn.attend, implementation="chunked")),
        "ours, ALiBi": in_jax(sizes, dtype, alibi),
    }
    if jax.default_backend() == "gpu" and dtype == "bfloat16":
        cudnn = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
        steps["cuDNN, through jax.nn"] = in_jax(sizes, dtype, cudnn)
    if importlib.util.find_spec("torch") and importlib.import_module("torch").cuda.is_available():
        flash = "FLASH_ATTENTION" if dtype == "bfloat16" else "EFFICIENT_ATTENTION"
        steps[f"torch, {flash.lower()}"] = in_torch(sizes, dtype, "cuda", flash)
        steps["torch, FlexAttention, ALiBi"] = in_flex(sizes, dtype, "cuda")
    return steps


def masked(sizes: Sizes, dtype: str, window: int) -> dict[str, Step]:
    options: dict[str, dict[str, Any]] = {
        "full": {},
        "causal": {"causal": True},
        f"window of {window}": {"causal": True, "window": (window - 1, None)},
        f"{window} on each side": {"window": (window, window)},
    }
    return {name: in_jax(sizes, dtype, functools.partial(attn.attend, **masks)) for name, masks in options.items()}


def inputs(sizes: Sizes) -> list[np.ndarray]:
    """The query, key, value and gradient of the output, `[B, T, N, H]`."""
    shape = sizes.B, sizes.T, sizes.N, sizes.H
    return [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i in range(4)]


def in_jax(sizes: Sizes, dtype: str, function: Callable[..., jax.Array], sharded: bool = False) -> Step:
    """A step of a JAX function. `sharded` runs it under `jax.shard_map`, over the batch if possible, else over the heads."""

    def both(query: jax.Array, key: jax.Array, value: jax.Array, gradient: jax.Array) -> Any:
        output, pull = jax.vjp(function, query, key, value)
        return output, *pull(gradient)

    step = jax.jit(both)
    if sharded:
        mesh = Mesh(np.array(jax.devices()), ("shard",))
        spec = PartitionSpec("shard") if sizes.B % mesh.size == 0 else PartitionSpec(None, None, "shard")
        step = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=(spec,) * 4, out_specs=spec))
    arrays = [jnp.asarray(x, dtype) for x in inputs(sizes)]
    return lambda: jax.block_until_ready(step(*arrays))


def in_torch(sizes: Sizes, dtype: str, device: str = "cpu", backend: str | None = None) -> Step:
    """A step of `scaled_dot_product_attention`. `backend` names a `torch.nn.attention.SDPBackend`; None lets PyTorch choose."""
    torch = importlib.import_module("torch")  # part of the extra "peers"
    attention = torch.nn.functional.scaled_dot_product_attention
    if backend is None:
        return _torch_step(torch, sizes, dtype, device, attention)
    sdpa = importlib.import_module("torch.nn.attention")

    def on_backend(*tensors: Any) -> Any:
        with sdpa.sdpa_kernel(getattr(sdpa.SDPBackend, backend)):
            return attention(*tensors)

    return _torch_step(torch, sizes, dtype, device, on_backend)


def in_flex(sizes: Sizes, dtype: str, device: str) -> Step:
    """A step of compiled FlexAttention with the slopes of our ALiBi."""
    torch = importlib.import_module("torch")
    flex = torch.compile(importlib.import_module("torch.nn.attention.flex_attention").flex_attention)
    slopes = torch.tensor(attn.score_mods.alibi_slopes(sizes.N), dtype=torch.float32, device=device)

    def alibi(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        return score - slopes[head] * (query - key).abs()

    return _torch_step(torch, sizes, dtype, device, functools.partial(flex, score_mod=alibi))


def _torch_step(torch: Any, sizes: Sizes, dtype: str, device: str, attention: Callable[..., Any]) -> Step:
    torch.set_num_threads(len(jax.devices("cpu")))
    tensors = [
        torch.from_numpy(x.transpose(0, 2, 1, 3).copy()).to(device, getattr(torch, dtype)).requires_grad_(i < 3)
        for i, x in enumerate(inputs(sizes))
    ]

    def step() -> None:
        for tensor in tensors[:3]:
            tensor.grad = None
        attention(*tensors[:3]).backward(tensors[3])
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _dense(*arrays: jax.Array) -> jax.Array:
    return attn.attend(*arrays, implementation="dense")
