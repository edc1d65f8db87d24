"""The programs of `experiments.training.steps`, compiled as the runner compiles them, with one virtual CPU device per core."""

import jax
import numpy as np

from attn.models.classifier import Classifier
from experiments.machine import devices
from experiments.training import build, steps
from scripts.contenders.workload import Contender, Workload


def ours(workload: Workload, plan: steps.Plan | None = None) -> Contender:
    """Our model, ready to run. `plan` says how a batch is split over devices and microbatches; None means as in the runner."""
    devices.start()
    jax.config.update("jax_enable_compilation_cache", False)
    plan = plan or build.build_plan(workload.config, Classifier(workload.model), len(workload.labels))
    state = plan.replicate(steps.initial_state(plan, jax.random.key(0), build.scalars_of(workload.config)))
    order = np.asarray(steps.epoch_order(plan, state.rng, 0, len(workload.labels)))
    batches, split = plan.batches(workload.tokens, workload.labels, order), plan.split(workload.tokens, workload.labels)
    zero = plan.replicate(steps.Sums.zero())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))

    def train() -> None:
        nonlocal state
        state, _, _ = jax.block_until_ready(steps.train(plan, state, zero, batches, 0, len(order)))

    return Contender(parameters, train, lambda: jax.block_until_ready(steps.evaluate(plan, state.params, split)))
