"""The floor: the least time that a train step or an evaluation can take on this machine.

    python scripts/floor.py

The script counts the fewest operations and exponentials with which exact softmax attention can be computed, and the bytes that
must be moved to and from main memory. It divides each by the rate that the machine reaches, and adds the three times:

    operations / FLOP/s of a large float32 product + exponentials / exponentials/s in the cache + bytes / bytes/s of a copy

They are added, because a core has one set of vector units for operations and exponentials, and because no part of the work
waits for memory only.

The last layer of a body is pooled: the mean over the queries is taken before the weights multiply the values, so they multiply
one row of weights instead of T. Therefore it has fewer operations than the other layers, and projects a single output vector.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from attn.models.classifier import ClassifierConfig
from experiments import settings
from experiments.machine import devices
from experiments.report import tables
from scripts.contenders.workload import Sizes, make_workload

# The sizes for `measure`, by platform: the side of the square matrices, and how many exponentials are computed how many times;
# on all platforms, how many floats are copied.
PRODUCT_SIDE = {"cpu": 1024, "gpu": 8192, "tpu": 8192}
EXPONENTIALS = {"cpu": 2**15, "gpu": 2**26, "tpu": 2**26}
REPEATS = {"cpu": 400, "gpu": 50, "tpu": 50}
COPIED = 2**26


class Work(NamedTuple):
    """What has to be computed for one example."""

    operations: float  # a multiplication and an addition of a product count as two
    exponentials: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":  # type: ignore[override]
        return Work(*(a + b for a, b in zip(self, other, strict=True)))


class Machine(NamedTuple):
    """The rates per second of all cores, or of the accelerator."""

    operations: float
    exponentials: float
    bytes: float

    def seconds(self, work: Work, examples: int) -> float:
        return examples * sum(amount / rate for amount, rate in zip(work, self, strict=True))


def attention(queries: int, keys: int, heads: int, key_dim: int, value_dim: int, train: bool, pooled: bool = False) -> Work:
    """Forward: scores and weighted sum. Backward: gradients of weights, query, key and value. No score is computed twice."""
    pairs = heads * queries * keys
    if pooled:  # the mean of the weights over the queries, then one weighted sum; all queries have the same gradient
        columns = key_dim + 1 + (2 * key_dim + 1 if train else 0)
    else:
        columns = key_dim + value_dim + (2 * (key_dim + value_dim) if train else 0)
    return Work(2 * pairs * columns, pairs, 0)


def dense(rows: int, inputs: int, outputs: int, train: bool) -> Work:
    return Work(2 * rows * inputs * outputs * (3 if train else 1), 0, 0)


def model(config: ClassifierConfig, train: bool) -> Work:
    """The work for one review. The bytes are the rows of the embedding table, and in training the gradient added to them."""
    length, dim = config.max_length, config.embed_dim
    work = Work(0, 0, 4 * length * dim * (3 if train else 1))
    inner = config.num_heads * config.key_dim
    for index in range(config.num_layers):
        pooled = config.body != "transformer" and index == config.num_layers - 1 and config.dropout_rate == 0
        work += attention(length, length, config.num_heads, config.key_dim, config.key_dim, train, pooled)
        if config.body != "attention":
            outer = config.output_dims[index] if config.body == "multi_head" else config.embed_dim
            work += dense(length, dim, 3 * inner, train) + dense(1 if pooled else length, inner, outer, train)
            dim = outer
        if config.body == "transformer":
            work += dense(length, dim, config.feedforward_dim, train) + dense(length, config.feedforward_dim, dim, train)
    return work


def measure() -> Machine:
    """Measures the rates on all devices at once, as the best of several runs. Other load on the machine lowers them too."""
    mesh = Mesh(jax.devices(), ("device",))
    platform = jax.default_backend()
    side, count, repeats = PRODUCT_SIDE[platform], EXPONENTIALS[platform], REPEATS[platform]
    spec = NamedSharding(mesh, PartitionSpec("device"))
    devices = len(jax.devices())

    def best(step: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], repeats: int) -> float:
        def repeated(x: jax.Array) -> jax.Array:
            return lax.fori_loop(0, repeats, lambda _, x: lax.optimization_barrier(step(x)), x)

        run = jax.jit(jax.shard_map(repeated, mesh=mesh, in_specs=PartitionSpec("device"), out_specs=PartitionSpec("device")))
        x = jax.device_put(jnp.full((devices, *shape), 1e-3, jnp.float32), spec)
        times = []
        for _ in range(7):
            started = time.perf_counter()
            jax.block_until_ready(run(x))
            times.append(time.perf_counter() - started)
        return min(times[1:]) / repeats

    product = best(lambda x: x @ x, (side, side), 8)
    exponential = best(lambda x: jnp.exp(-x), (count,), repeats)
    copy = best(lambda x: x + 1, (COPIED,), 4)
    return Machine(
        devices * 2 * side**3 / product,
        devices * count / exponential,
        devices * 2 * 4 * COPIED / copy,
    )


def share(least: float, seconds: float) -> str:
    """The cell of the column "share of the floor"."""
    return f"{100 * least / seconds:.0f}%"


def main() -> None:
    devices.start()
    machine = measure()
    print(describe(machine))
    sizes = Sizes(512, 256, 1)
    rows = [_row(name, what, sizes, machine) for name in settings.MODELS for what in ("train", "evaluate")]
    header = ["batch 512, 256 tokens", "what", "GFLOP", "million exponentials", "MB", "floor, ms"]
    print("\n" + tables.markdown(header, rows))


def _row(name: str, what: str, sizes: Sizes, machine: Machine) -> list[str]:
    work = model(make_workload(name, sizes).model, what == "train")
    amounts = [sizes.batch_size * amount / unit for amount, unit in zip(work, (1e9, 1e6, 1e6), strict=True)]
    return [name, what, *(f"{amount:.1f}" for amount in amounts), f"{1e3 * machine.seconds(work, sizes.batch_size):.1f}"]


def describe(machine: Machine) -> str:
    operations, exponentials, memory = (rate / 1e9 for rate in machine)
    return f"This machine: {operations:.0f} GFLOP/s, {exponentials:.2f} G exponentials/s, {memory:.1f} GB/s"


if __name__ == "__main__":
    main()
