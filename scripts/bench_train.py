"""The time of a train step and of evaluating a batch, for the blog's four models in `attn` and in other libraries.

    python scripts/bench_train.py
    python scripts/bench_train.py --models transformer --rounds 3 --peers linen torch
    python scripts/bench_train.py --what evaluate

A contender is one implementation of the model. "ours" is `experiments.training.steps` as the runner calls it, with one virtual
CPU device per core. "linen" is flax.linen with `optax.adam` and the whole batch under one `jax.jit`. "keras-tensorflow" and
"keras-jax" are Keras 3 layers through `fit` and `evaluate`, with Keras' defaults. "torch" and "torch-compiled" use
`scaled_dot_product_attention`, eagerly and through `torch.compile`. See `scripts/contenders/`.

Each contender has its own process. They run in turn, A B C A B C …, a few batches per turn, so that other load on the machine
affects all of them. "its / ours" is the ratio to our time in the same round, so its median is not the ratio of the medians. The
first turn, which compiles without a compilation cache, has its own column. "share of the floor" is the least possible time,
computed by `scripts/floor.py`, divided by the median.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import settings
from experiments.machine import devices
from experiments.report import tables
from scripts import floor
from scripts.contenders import processes
from scripts.contenders.processes import CONTENDERS
from scripts.contenders.workload import Contender, Sizes, make_workload
from scripts.turns import cells, conditions, median, time_in_turn

WHAT = ("train", "evaluate")
MODULES = ("keras", "tensorflow", "torch")

Start = Callable[[str, str, Sizes], Contender]


def bench(
    model: str, names: Sequence[str], arguments: argparse.Namespace, machine: floor.Machine, start: Start = processes.start
) -> list[list[str]]:
    """The rows of the table for one model, one row per contender.

    Raises:
      ValueError: the contenders have different numbers of parameters, so they are not the same model.
    """
    sizes = Sizes(arguments.batch_size, arguments.length, arguments.batches)
    contenders = {}
    for name in names:
        print(f"{model}: {name}", file=sys.stderr, flush=True)
        contenders[name] = start(name, model, sizes)
    parameters = {name: contender.parameters for name, contender in contenders.items()}
    if len(set(parameters.values())) > 1:
        raise ValueError(f"{model}: the contenders differ in their number of parameters: {parameters}")
    rows = []
    for what in arguments.what:
        least = machine.seconds(floor.model(make_workload(model, sizes).model, what == "train"), sizes.batch_size)
        turns: Mapping[str, Callable[[], object]] = {name: getattr(contender, what) for name, contender in contenders.items()}
        seconds = time_in_turn(turns, arguments.rounds)
        per_batch = {name: [second / sizes.batches for second in times] for name, times in seconds.items()}
        for name, times in per_batch.items():
            milliseconds, *ratios, _ = cells(times, per_batch["ours"])
            rate, share = f"{sizes.batch_size / median(times):,.0f}", floor.share(least, median(times))
            rows.append([model, what, name, milliseconds, *ratios, rate, share, f"{seconds[name][0]:.1f}"])
    return rows


def main() -> None:
    arguments = parse(sys.argv[1:])
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # all contenders share the memory of a GPU
    devices.start()
    missing = {name: [m for m in CONTENDERS[name][1] if importlib.util.find_spec(m) is None] for name in arguments.peers}
    machine = floor.measure()
    names = ["ours", *(name for name in arguments.peers if not missing[name])]
    rows = [row for model in arguments.models for row in bench(model, names, arguments, machine)]
    sizes = f"batch {arguments.batch_size}, {arguments.length} tokens, {arguments.batches} batches per turn"
    print(conditions(sizes, arguments.rounds, MODULES))
    print(floor.describe(machine))
    for name, modules in missing.items():
        if modules:
            print(f"{name} is left out: {' and '.join(modules)} not installed (part of the extra bench)")
    header = [
        "model",
        "what",
        "contender",
        "ms",
        "its / ours",
        "min",
        "max",
        "examples/s",
        "share of the floor",
        "first turn, s",
    ]
    print("\n" + tables.markdown(header, rows))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = [name for name in CONTENDERS if name != "ours"]
    parser.add_argument("--models", nargs="+", choices=settings.MODELS, default=settings.MODELS)
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers)
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    sizes = {"rounds": 7, "batch_size": 512, "length": 256, "batches": 4}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    values = parser.parse_args(arguments)
    for name in sizes:
        if getattr(values, name) < 1:
            parser.error(f"--{name}={getattr(values, name)} is not positive")
    return values


if __name__ == "__main__":
    main()
