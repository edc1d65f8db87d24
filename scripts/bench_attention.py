"""Milliseconds of attention forward and backward: ours, the definition's, PyTorch's and JAX's own, float32.

    python scripts/bench_attention.py
    python scripts/bench_attention.py --workloads 32,2,256,16 --rounds 15
    python scripts/bench_attention.py --masks          # what causality and a window save

A workload is B,N,T,H with T = S. "sharded" contenders run under `jax.shard_map`, over the batch or else the heads, with one
virtual CPU device a core; the others get the whole machine and one call. torch is
`scaled_dot_product_attention` with its gradients, in eager mode with a thread a core. The contenders of a workload run in
turn, and a ratio is taken within a round (see `scripts.turns`).
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import attn
from experiments import commands, report
from scripts.turns import cells, conditions, time_in_turn

WORKLOADS = ("32,2,256,16", "512,1,256,16", "1,8,1024,64", "1,8,4096,64")
MASKED_LENGTH, WINDOW = 8_192, 256
Sizes = tuple[int, int, int, int]


def inputs(sizes: Sizes) -> list[np.ndarray]:
    """query, key, value and the output's gradient, `[B, T, N, H]`."""
    batch, heads, length, head_dim = sizes
    return [np.random.default_rng(i).normal(size=(batch, length, heads, head_dim)).astype(np.float32) for i in range(4)]


def in_jax(sizes: Sizes, function: Callable[..., jax.Array], sharded: bool) -> Callable[[], None]:
    """A step of a JAX attention: output and the three gradients."""

    def both(query: jax.Array, key: jax.Array, value: jax.Array, gradient: jax.Array) -> Any:
        output, pull = jax.vjp(function, query, key, value)
        return output, *pull(gradient)

    step = jax.jit(both)
    if sharded:
        mesh = Mesh(np.array(jax.devices()), ("shard",))
        spec = PartitionSpec("shard") if sizes[0] % mesh.size == 0 else PartitionSpec(None, None, "shard")
        step = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=(spec,) * 4, out_specs=spec))
    arrays = list(map(jnp.asarray, inputs(sizes)))
    return lambda: jax.block_until_ready(step(*arrays))


def in_torch(sizes: Sizes) -> Callable[[], None]:
    torch = importlib.import_module("torch")  # of the extra "peers"
    torch.set_num_threads(len(jax.devices()))
    tensors = [torch.from_numpy(x.transpose(0, 2, 1, 3).copy()) for x in inputs(sizes)]
    for tensor in tensors[:3]:
        tensor.requires_grad_()

    def step() -> None:
        for tensor in tensors[:3]:
            tensor.grad = None
        torch.nn.functional.scaled_dot_product_attention(*tensors[:3]).backward(tensors[3])

    return step


def contenders(sizes: Sizes) -> dict[str, Callable[[], None]]:
    def dense(*arrays: jax.Array) -> jax.Array:
        return attn.attend(*arrays, implementation="dense")

    steps = {
        "ours, sharded": in_jax(sizes, attn.attend, sharded=True),
        "ours": in_jax(sizes, attn.attend, sharded=False),
        "dense, sharded": in_jax(sizes, dense, sharded=True),
        "dense": in_jax(sizes, dense, sharded=False),
        "jax.nn, sharded": in_jax(sizes, jax.nn.dot_product_attention, sharded=True),
    }
    return steps | ({"torch": in_torch(sizes)} if importlib.util.find_spec("torch") else {})


def masks(sizes: Sizes) -> dict[str, Callable[[], None]]:
    options: dict[str, dict[str, Any]] = {
        "full": {},
        "causal": {"causal": True},
        f"window of {WINDOW}": {"causal": True, "window": (WINDOW - 1, None)},
        f"{WINDOW} on each side": {"window": (WINDOW, WINDOW)},
    }
    return {
        name: in_jax(sizes, lambda *arrays, chosen=chosen: attn.attend(*arrays, **chosen), sharded=False)
        for name, chosen in options.items()
    }


def bench(name: str, steps: dict[str, Callable[[], None]], rounds: int) -> list[list[str]]:
    print(name, file=sys.stderr, flush=True)
    seconds = time_in_turn(steps, rounds)
    first = next(iter(steps))
    return [[name, contender, *cells(seconds[contender], seconds[first])] for contender in steps]


def main() -> None:
    arguments = parse(sys.argv[1:])
    commands.use_all_cores()
    if arguments.masks:
        sizes = (1, 1, arguments.length, 64)
        rows = bench(",".join(map(str, sizes)), masks(sizes), arguments.rounds)
        base = "full"
    else:
        rows = [row for name in arguments.workloads for row in bench(name, contenders(_sizes(name)), arguments.rounds)]
        base = "ours, sharded"
    print(conditions("forward + backward, float32", arguments.rounds, ["torch"]))
    header = ["B,N,T,H", "contender", "ms", f"its time / that of {base}", "min", "max", "first call, s"]
    print("\n" + report.table(header, rows))


def _sizes(workload: str) -> Sizes:
    batch, heads, length, head_dim = map(int, workload.split(","))
    return batch, heads, length, head_dim


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=WORKLOADS)
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--length", type=int, default=MASKED_LENGTH, help="of --masks")
    parser.add_argument("--rounds", type=int, default=9)
    values = parser.parse_args(arguments)
    for workload in values.workloads:
        if len(parts := workload.split(",")) != 4 or not all(part.isdecimal() and int(part) for part in parts):
            parser.error(f"--workloads {workload!r} must be four positive numbers, B,N,T,H")
    for name in ("rounds", "length"):
        if getattr(values, name) < 1:
            parser.error(f"--{name}={getattr(values, name)} is not positive")
    return values


if __name__ == "__main__":
    main()
