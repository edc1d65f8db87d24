"""How the time of a train step grows with the batch size, and with the number of models that one program trains.

    python scripts/bench_growth.py
    python scripts/bench_growth.py --models transformer --counts 1 8 32

"batch: exponent" is e in milliseconds = c · batch^e, fitted over the batch sizes. "models: exponent" is the same over the
number of models that one step trains, each with its own seed and its own order of the examples. On a CPU the models are trained
one after the other, because one model uses all cores; on an accelerator they are trained in parallel. All sizes are timed in
turn, and the exponents are fitted to the times of each round.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from jax import lax

from attn.models.classifier import Classifier
from experiments import settings
from experiments.machine import devices
from experiments.report import tables
from experiments.training import build, steps
from scripts.contenders.ours import ours
from scripts.contenders.workload import Sizes, make_workload
from scripts.turns import WARM_UP, conditions, spread, time_in_turn

BATCHES, COUNTS = (64, 128, 256, 512, 1024), (1, 2, 4, 8)


def batch_rows(model: str, batches: tuple[int, ...], length: int, rounds: int) -> list[list[str]]:
    turns = {batch: ours(make_workload(model, Sizes(batch, length, 1))).train for batch in batches}
    return _rows(model, "batch", turns, rounds)


def model_rows(model: str, counts: tuple[int, ...], batch: int, length: int, rounds: int) -> list[list[str]]:
    return _rows(model, "models", {count: several(model, count, Sizes(batch, length, 1)) for count in counts}, rounds)


def each(function: Callable) -> Callable:
    """`function` for every model: in parallel on an accelerator, one model after the other on a CPU."""
    if jax.default_backend() != "cpu":
        return jax.vmap(function)
    return lambda *arrays: lax.map(lambda one_model: function(*one_model), arrays)


def several(model: str, count: int, sizes: Sizes) -> Callable[[], steps.State]:
    """A function that runs one train step of `count` models in one program, and returns their states, stacked."""
    workload = make_workload(model, sizes)
    plan = build.build_plan(workload.config, Classifier(workload.model), len(workload.labels))
    rngs = jax.vmap(jax.random.key)(np.arange(count))
    scalars = build.scalars_of(workload.config)
    states = plan.replicate(lax.map(lambda rng: steps.initial_state(plan, rng, scalars), rngs))
    orders = np.asarray(lax.map(lambda rng: steps.epoch_order(plan, rng, 0, len(workload.labels))[0], rngs))
    batches = plan.batches(workload.tokens, workload.labels, orders)  # the first batch of each model

    @functools.partial(jax.jit, donate_argnums=0)
    def step(states: steps.State, batches: steps.Batches) -> steps.State:
        return each(lambda state, batch: steps.train_step(plan, state, batch)[0])(states, batches)

    def train() -> steps.State:
        nonlocal states
        states = jax.block_until_ready(step(states, batches))
        return states

    return train


def _rows(model: str, what: str, turns: Mapping[int, Callable[[], object]], rounds: int) -> list[list[str]]:
    """The rows of the table: the milliseconds for each size, and the exponent."""
    seconds = time_in_turn({str(size): turn for size, turn in turns.items()}, rounds)
    milliseconds = 1e3 * np.array([seconds[str(size)][WARM_UP:] for size in turns])
    rows = [[model, f"{what}: {size}", *spread(times.tolist())] for size, times in zip(turns, milliseconds, strict=True)]
    exponents = np.polyfit(np.log(list(turns)), np.log(milliseconds), 1)[0]
    return [*rows, [model, f"{what}: exponent", *spread(exponents.tolist())]]


def main() -> None:
    arguments = parse(sys.argv[1:])
    devices.start()
    rows = []
    for model in arguments.models:
        print(model, file=sys.stderr, flush=True)
        rows += batch_rows(model, tuple(arguments.batches), arguments.length, arguments.rounds)
        rows += model_rows(model, tuple(arguments.counts), arguments.batch_size, arguments.length, arguments.rounds)
    sizes = f"{arguments.length} tokens, batches of {arguments.batch_size} for several models"
    print(conditions(sizes, arguments.rounds, ()))
    print("\n" + tables.markdown(["model", "ms per step", "median", "min", "max"], rows))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=settings.MODELS, default=settings.MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="numbers of models in one program")
    for name, default in {"batch_size": 512, "length": 256, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    values = parser.parse_args(arguments)
    for name, sizes in vars(values).items():
        if name != "models" and min(np.atleast_1d(sizes)) < 1:
            parser.error(f"--{name}={sizes} must be positive")
    for name in ("batches", "counts"):
        if len(set(getattr(values, name))) < 2:
            parser.error(f"--{name}={getattr(values, name)} must be at least two different sizes, to fit an exponent")
    return values


if __name__ == "__main__":
    main()
