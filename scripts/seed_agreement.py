"""How far runs that are trained in parallel by one program (`jax.vmap`) are from the same runs alone.

    python scripts/seed_agreement.py --epochs 4

For each seed: the difference of the loss and of the gradient of the first step, over the largest entry; and the largest
difference of the validation loss over the epochs. The rows "one unit in the last place" are runs alone whose first parameters
differ from the others' by as much, up or down by chance: no agreement of curves can be expected to be better than theirs.
Dropout is on. Runs that are mapped, as on a CPU, have the bits of those alone; tests/test_seeds.py holds that.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import settings
from experiments.machine import devices
from experiments.report import tables
from experiments.training import build, position, steps
from scripts.device_agreement import Outcome, differences, outcome

SEEDS = (0, 1, 2)
MOVED = 3  # for each seed


def in_parallel(count: int, epochs: int, examples: int) -> list[Outcome]:
    """Trains all seeds by one program; see `device_agreement.outcome`."""
    config = settings.load_page("transformer", "verdicts")
    config.devices = count
    corpus = build.build_corpus(config)
    plan = build.build_plan(config, build.build_model(config, corpus.tokenizer), examples)
    states = []
    for config.seed in SEEDS:
        states.append(position.initial(plan, config).state)
    validation, zeros = plan.split(corpus.validation.tokens, corpus.validation.labels), (0,) * len(SEEDS)
    curves, first = [], None
    for epoch in range(epochs):
        orders = [np.asarray(steps.epoch_order(plan, state.rng, epoch, examples)) for state in states]
        batches = tuple(plan.batches(corpus.train.tokens, corpus.train.labels, order) for order in orders)
        if first is None:
            stacked = jax.tree.map(
                lambda *leaves: jnp.stack(leaves), *zip(states, (steps.at(b, 0) for b in batches), strict=True)
            )
            first = jax.device_get(jax.jit(jax.vmap(lambda s, b: steps.mean_gradient(plan, s, b)))(*stacked))
        sums, ends = (plan.replicate(steps.Sums.zero()) for _ in SEEDS), (len(orders[0]),) * len(SEEDS)
        states = [state for state, _, _ in steps.train_in_parallel(plan, tuple(states), tuple(sums), batches, zeros, ends)]
        losses = steps.evaluate_in_parallel(plan, tuple(state.params for state in states), validation)
        curves.append([sums.means()[0] for sums in losses])
    assert first is not None
    gradients, sums = first
    return [
        Outcome(
            float(sums.loss[index] / sums.examples[index]),
            np.concatenate([np.ravel(leaf[index]) for leaf in jax.tree.leaves(gradients)]),
            np.array(curves)[:, index],
        )
        for index in range(len(SEEDS))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--examples", type=int, default=4000)
    sizes = vars(parser.parse_args())
    devices.start()
    count, rows = len(jax.devices()), []
    for seed, found in zip(SEEDS, in_parallel(count, **sizes), strict=True):
        alone = outcome(count, **sizes, seed=seed)
        rows.append([f"seed {seed}, in parallel", *differences(found, alone)])
        moved = [differences(outcome(count, **sizes, seed=seed, ulps=ulps), alone) for ulps in range(MOVED)]
        rows += [[f"seed {seed}, one unit in the last place, {ulps}", *each] for ulps, each in enumerate(moved)]
    cells = [[str(name), *(f"{value:.1e}" for value in values)] for name, *values in rows]
    print(tables.markdown(["against the run alone", "loss", "gradient", f"curve of {sizes['epochs']} epochs"], cells))


if __name__ == "__main__":
    main()
