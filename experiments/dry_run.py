"""What a run would be: its config, parameters, operations, memory and files, without training it."""

import functools
import math
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.summary import tabulate

from experiments import build, devices, flops, settings, steps
from experiments.data.corpus import Corpus
from experiments.settings import Config

_WIDTH = 110  # columns of the table of parameters
_KEPT = {"last": 2, "best": 2}  # checkpoints in a run folder
_ESTIMATES = {
    "cond": "branches (the longest)",
    "while": "loops of unknown length (one pass)",
    "attn_masked_product": "masked products (as if no NaN were masked)",
}


def describe(config: Config, workdir: Path | None) -> str:
    """Returns what `train --dry_run` prints.

    Args:
      config: The config of the run, checked here.
      workdir: Where the run would be, for the free space of its disk; None leaves that out.

    Raises:
      UsageError: The config breaks a rule.
      DataError: The corpus cannot be read.
    """
    settings.check(config)
    corpus = build.build_corpus(config)
    plan = build.build_plan(config, build.build_model(config, corpus.tokenizer), len(corpus.train.labels))
    state = jax.eval_shape(functools.partial(steps.initial_state, plan), jax.random.key(config.seed))
    sections = {
        "Config": _config(config),
        "Parameters": _parameters(plan, state),
        "Work": _work(config, plan, corpus, state),
        "Memory": _memory(plan, state, corpus),
        "Disk": _disk(state, workdir),
    }
    return "\n\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items())


def _config(config: Config) -> list[str]:
    return [shlex.quote(f"--config.{field}={value}") for field, value in settings.flatten(config).items()]


def _parameters(plan: steps.Plan, state: steps.State) -> list[str]:
    tokens = jax.ShapeDtypeStruct((1, plan.model.config.max_length), jnp.int32)
    console = {"force_terminal": False, "width": _WIDTH}
    table = tabulate(plan.model, jax.random.key(0), depth=1, console_kwargs=console)(jnp.zeros(tokens.shape, tokens.dtype))
    rows = [line.rstrip() for line in table.strip().splitlines() if line.strip()]
    attention = (f"layer {index}: {line}" for index, line in enumerate(build.attention_of(plan.model), start=1))
    return [
        *rows[:-1],
        f"{_size(state.params):,} parameters",
        "attention in a train step:",
        *(f"  {line}" for line in attention),
    ]


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _work(config: Config, plan: steps.Plan, corpus: Corpus, state: steps.State) -> list[str]:
    examples, length = len(corpus.train.labels), plan.model.config.max_length
    per_epoch = -(-examples // config.batch_size)
    step = flops.count(functools.partial(steps.train_step, plan), state, _batch(plan))
    per_example, whole = step.flops / config.batch_size, config.epochs * per_epoch * step.flops
    most = "" if config.patience is None else "at most "
    lines = [
        devices.described(plan.devices),
        f"{examples:,} examples of up to {length:,} tokens, from a vocabulary of {plan.model.config.vocabulary_size:,}",
        f"batches of {config.batch_size:,}: {per_epoch:,} steps an epoch, {most}{config.epochs * per_epoch:,} "
        f"in {config.epochs:,} epochs",
        f"{_scaled(step.flops, 'FLOP')} a step, {_scaled(per_example, 'FLOP')} an example, "
        f"{most}{_scaled(whole, 'FLOP')} in all, without evaluation",
        f"{_scaled(step.transcendentals, '').strip()} results of exp, log and the like a step beside them",
    ]
    if plan.rows > config.batch_size:
        lines.append(f"a step computes {plan.rows:,} rows: the batch, rounded up to equal parts on the devices")
    if step.estimated:
        names = sorted(_ESTIMATES.get(name, name) for name in step.estimated)
        lines.append(f"estimated, or not counted where not known: {', '.join(names)}")
    return lines


def _batch(plan: steps.Plan, steps_of_epoch: Sequence[int] = ()) -> steps.Batches:
    """The shapes of a batch, or of those of an epoch."""
    shape = (*steps_of_epoch, plan.rows)
    arrays: Any = [
        jax.ShapeDtypeStruct((*shape, plan.model.config.max_length), jnp.uint16),
        jax.ShapeDtypeStruct(shape, jnp.int8),
        jax.ShapeDtypeStruct(shape, jnp.int32),
    ]
    return steps.Batches(*arrays)


def _memory(plan: steps.Plan, state: steps.State, corpus: Corpus) -> list[str]:
    """What the compiler says of a train step, for each device."""
    sums = jax.eval_shape(steps.Sums.zero)
    epoch = _batch(plan, (-(-len(corpus.train.labels) // plan.batch_size),))
    analysis = steps.train.lower(plan, state, sums, epoch, 0, 1).compile().memory_analysis()
    if analysis is None:
        return ["not told by this backend"]
    parts = {"arguments": "argument", "results": "output", "temporary": "temp"}
    sizes = {name: getattr(analysis, f"{part}_size_in_bytes") for name, part in parts.items()}
    return [f"{name:<9} {_mebibytes(size)} a device" for name, size in sizes.items()]


def _disk(state: steps.State, workdir: Path | None) -> list[str]:
    params = 4 * _size(state.params)
    last = params + 4 * _size(state.optimizer)
    lines = [
        f"arrays of a checkpoint: last {_mebibytes(last)}, best {_mebibytes(params)}",
        f"a run folder keeps {_KEPT['last']} of each: {_mebibytes(_KEPT['last'] * last + _KEPT['best'] * params)}, "
        "and about 0.3 MiB of metadata and curves",
    ]
    if workdir is None:
        return lines
    existing = next(path for path in (workdir.absolute(), *workdir.absolute().parents) if path.exists())
    return [*lines, f"free at {workdir}: {_mebibytes(shutil.disk_usage(existing).free)}"]


def _mebibytes(size: float) -> str:
    """Returns for example "77,753 MiB", "1.88 MiB" or "0.0227 MiB"."""
    mebibytes = size / 2**20
    return f"{mebibytes:,.0f} MiB" if mebibytes >= 100 else f"{mebibytes:.3g} MiB"


def _scaled(value: float, unit: str) -> str:
    """Returns for example "1.23 GFLOP"."""
    power = min(5, int(math.log(max(value, 1), 1000)))
    return f"{value / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P'][power]}{unit}"
