"""The temporary memory of compiled attention by length: linear, whereas an array of the weights would be quadratic.

    python scripts/attention_memory.py
    python scripts/attention_memory.py --peak 65536     # runs attention, and measures the memory of the process

One example, 8 heads of 64 channels, float32. The bytes are those of `compiled.memory_analysis()`, without arguments and
results. Nothing is run for the table, so it is the same on a busy machine. "1st × 4" is the factor by which the memory grows
from the first length to the second, which is four times as long; "2nd × 4" is the factor from the second to the third.
"""

import argparse
import itertools
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

import attn
from experiments.report import tables

HEADS, HEAD_DIM, LONGEST = 8, 64, 16_384
LENGTHS = (1_024, 4_096, LONGEST)
MIB = 2**20


def relative_bias(table: jax.Array) -> dict[str, Any]:
    return {"score_mod": attn.score_mods.relative_bias(table)}


CASES: dict[str, Callable[[jax.Array], dict[str, Any]]] = {
    "scaled_dot": lambda table: {},
    "additive": lambda table: {"score": "additive"},
    "relative bias": relative_bias,
    "dropout": lambda table: {"dropout_rate": 0.1, "dropout_rng": jax.random.key(0)},
    "causal": lambda table: {"causal": True},
}


def temporary_bytes(case: str, length: int, implementation: Any, backward: bool) -> int:
    """The bytes for forward only, or for forward and backward.

    Backward computes the gradients of query, key, value and the table `[N, 2 · 16,384 − 1]` of relative biases.
    """

    def forward(query: jax.Array, key: jax.Array, value: jax.Array, table: jax.Array) -> jax.Array:
        return attn.attend(query, key, value, implementation=implementation, **CASES[case](table))

    def both(*arrays: jax.Array) -> Any:
        output, pull = jax.vjp(forward, *arrays[:-1])
        return output, pull(arrays[-1])

    array = jax.ShapeDtypeStruct((1, length, HEADS, HEAD_DIM), jnp.float32)
    arrays = [array, array, array, jax.ShapeDtypeStruct((HEADS, 2 * LONGEST - 1), jnp.float32)]
    lowered = jax.jit(both).lower(*arrays, array) if backward else jax.jit(forward).lower(*arrays)
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None  # all backends of JAX itself provide it
    return analysis.temp_size_in_bytes


def peak_bytes(length: int, head_dim: int = 16) -> tuple[int, float]:
    """How far forward and backward of one head raise the process's memory at its peak, and the seconds that they take."""
    arrays = [jnp.asarray(np.random.default_rng(i).normal(size=(1, length, 1, head_dim)), jnp.float32) for i in range(4)]
    both = jax.jit(lambda q, k, v, g: jax.vjp(attn.attend, q, k, v)[1](g)).lower(*arrays).compile()
    before = _resident()
    samples, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            samples.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    jax.block_until_ready(both(*arrays))
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return max(samples) - before, seconds


def _resident() -> int:
    """The bytes of the process in physical memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peak", type=int, help="run forward and backward at this length, and print how far the process's memory rises"
    )
    if (length := parser.parse_args().peak) is not None:
        added, seconds = peak_bytes(length)
        print(f"T = S = {length:,}, N 1, H 16: {added / MIB:.0f} MiB more than before the call, {seconds:.0f} s")
        return
    rows = []
    for case in CASES:
        for implementation in ("chunked", "auto"):
            for backward in (False, True):
                sizes = [temporary_bytes(case, length, implementation, backward) for length in LENGTHS]
                growth = [f"{b / a:.2f}" for a, b in itertools.pairwise(sizes)]
                direction = "forward + backward" if backward else "forward"
                rows.append([case, implementation, direction, *(f"{size / MIB:.1f}" for size in sizes), *growth])
    print(f"jax {jax.__version__}, {jax.default_backend()}; B 1, N {HEADS}, H {HEAD_DIM}, float32\n")
    print(tables.markdown(["MiB", "implementation", "", *(f"{n:,}" for n in LENGTHS), "1st × 4", "2nd × 4"], rows))


if __name__ == "__main__":
    main()
