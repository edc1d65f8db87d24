"""The time of attention forward and backward: `attn.attend`, its dense implementation, JAX's own attention and PyTorch's.

    python scripts/bench_attention.py
    python scripts/bench_attention.py --workloads 32,2,256,16 --rounds 15
    python scripts/bench_attention.py --masks          # how much time causality and a window save
    python scripts/bench_attention.py --dtype float32  # on a GPU, where bfloat16 is the default

A workload is B,N,T,H with T = S. On a CPU, the "sharded" contenders run under `jax.shard_map` with one virtual device per core,
over the batch if the devices divide it, else over the heads. The others are one call on the whole machine. "torch" is
`scaled_dot_product_attention` in eager mode with one thread per core. On a GPU there are also cuDNN's kernel, PyTorch's flash
attention, and compiled FlexAttention with the score_mod of "ours, ALiBi".

The contenders of a workload run in turn, and ratios are taken within a round (see `scripts/turns.py`). "share of the floor" is
the least possible time, computed by `scripts/floor.py`, divided by the median. It assumes float32 and that every score is
computed once, whereas an implementation in linear memory has to compute the scores twice.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax

from experiments.machine import devices
from experiments.report import tables
from scripts import attention_contenders as contenders
from scripts import floor
from scripts.attention_contenders import Sizes, Step
from scripts.floor import Machine
from scripts.turns import cells, conditions, median, time_in_turn

ON_CPU = ("32,2,256,16", "512,1,256,16", "8,2,1024,16", "1,8,1024,64", "1,8,4096,64")
ON_ACCELERATOR = ("4,8,4096,64", "1,8,16384,64")
MASKED_LENGTH, WINDOW = 8_192, 256


def bench(name: str, steps: dict[str, Step], rounds: int, machine: Machine | None) -> list[list[str]]:
    """The rows of the table for one workload, one per contender; with a machine, the last cell is the share of the floor."""
    print(name, file=sys.stderr, flush=True)
    seconds = time_in_turn(steps, rounds)
    first = next(iter(steps))
    rows = [[name, contender, *cells(seconds[contender], seconds[first])] for contender in steps]
    if machine is None:
        return rows
    batch, heads, length, dim = map(int, name.split(","))
    least = machine.seconds(floor.attention(length, length, heads, dim, dim, train=True), batch)
    return [[*row, floor.share(least, median(seconds[contender]))] for row, contender in zip(rows, steps, strict=True)]


def main() -> None:
    arguments = parse(sys.argv[1:])
    devices.start()
    cpu = jax.default_backend() == "cpu"
    dtype = arguments.dtype or ("float32" if cpu else "bfloat16")
    if arguments.masks:
        steps = {f"1,1,{arguments.length},64": contenders.masked(Sizes(1, 1, arguments.length, 64), dtype, WINDOW)}
    else:
        make = contenders.on_cpu if cpu else contenders.on_accelerator
        workloads = arguments.workloads or (ON_CPU if cpu else ON_ACCELERATOR)
        steps = {name: make(Sizes(*map(int, name.split(","))), dtype) for name in workloads}
    machine = None if arguments.masks else floor.measure()  # the floor counts every pair of a query and a key, masked or not
    rows = [row for name, functions in steps.items() for row in bench(name, functions, arguments.rounds, machine)]
    print(conditions(f"forward + backward, {dtype}", arguments.rounds, ["torch"]))
    header = ["B,N,T,H", "contender", "ms", f"time / time of {rows[0][1]}", "min", "max", "first call, s"]
    if machine is not None:
        print(floor.describe(machine))
        header.append("share of the floor")
    print("\n" + tables.markdown(header, rows))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=())
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--length", type=int, default=MASKED_LENGTH, help="T and S for --masks")
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
