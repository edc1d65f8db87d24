"""The operations of one train step, counted on shapes alone: nothing is compiled or computed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments import settings
from experiments.cost import flops
from experiments.settings import Config
from experiments.training import build, position, steps

_MANY = 2**31 - 1  # steps of a run, on whose number the operations of a step do not depend


def of_config(config: Config, vocabulary_size: int, max_length: int, num_classes: int | None = None) -> flops.Flops:
    """Counts the operations of a train step on one device.

    Args:
      config: The config of the run, checked here.
      vocabulary_size: That of its corpus.
      max_length: The length of its texts.
      num_classes: The number of its labels; None: the name of the data tells it.

    Raises:
      UsageError: The config breaks a rule.
    """
    settings.check(config)
    model = build.model_of(config, vocabulary_size, max_length, num_classes)
    plan = steps.make_plan(model, build.build_optimizer(config, _MANY), config.batch_size, jax.devices()[:1])
    return of_plan(plan, initial_state(plan, config))


def initial_state(plan: steps.Plan, config: Config) -> steps.State:
    """Returns the shapes of the state of a run."""
    return jax.eval_shape(lambda: position.initial_state(plan, config))


def of_plan(plan: steps.Plan, state: steps.State, target_length: int | None = None) -> flops.Flops:
    """Counts the operations of a train step of a plan; `target_length` as in `batch`."""
    return flops.count(functools.partial(steps.train_step, plan), state, batch(plan, (), target_length))


def batch(plan: steps.Plan, steps_of_epoch: Sequence[int] = (), target_length: int | None = None) -> steps.Batches:
    """Returns the shapes of a batch, or of those of an epoch; of pairs with targets of `target_length`, if that is not None."""
    labels = (jnp.int8, ()) if target_length is None else (jnp.uint16, (target_length,))
    shape = (*steps_of_epoch, plan.rows)
    arrays: Any = [
        jax.ShapeDtypeStruct((*shape, plan.model.config.max_length), jnp.uint16),
        jax.ShapeDtypeStruct((*shape, *labels[1]), labels[0]),
        jax.ShapeDtypeStruct(shape, jnp.int32),
    ]
    return steps.Batches(*arrays)
