"""A step of a tiny model on 1, 2 and 8 of the devices of this process, written to the file PATH; started by test_devices.py."""

import sys
from typing import Any

import jax
import numpy as np
import tiny

from experiments import settings
from experiments.machine import devices
from experiments.training import build, position, steps


def main(path: str) -> None:
    devices.start()
    found = {"described": devices.described(devices.chosen(None))}
    for count in (1, 2, 8):
        with tiny.fast_compilation():
            batch, gradient, sums = step(count)
        found |= {f"used {count}": len({shard.device for shard in batch.tokens.addressable_shards})}
        found |= {f"loss {count}": sums.means()[0]}
        found |= {f"gradient {count}": np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])}
    np.savez(path, **found)


def step(count: int) -> tuple[steps.Batches, Any, steps.Sums]:
    """The last batch of an epoch, which is ragged, the gradient of its mean loss, and the sums. Dropout is on."""
    config, corpus, examples = settings.load_page("transformer", "verdicts"), tiny.corpus(), tiny.SIZES["train"]
    config.devices, config.batch_size = count, tiny.BATCH_SIZE
    plan = build.build_plan(config, build.build_model(config, corpus.tokenizer), examples)
    state = position.initial(plan, config).state
    order = np.asarray(steps.epoch_order(plan, state.rng, 0, examples))
    batch = steps.at(plan.batches(corpus.train.tokens, corpus.train.labels, order), -1)
    return batch, *jax.jit(steps.mean_gradient, static_argnums=0)(plan, state, batch)


if __name__ == "__main__":
    main(sys.argv[1])
