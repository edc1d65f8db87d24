"""What a run would be: its config, parameters, operations, memory and files, without training it."""

import itertools
import math
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import rich.box
from flax.linen.summary import tabulate

from experiments import ranges, settings
from experiments.cost import train_step
from experiments.data.corpus import Corpus
from experiments.machine import devices
from experiments.settings import Config
from experiments.training import build, steps

_WIDTH = 110  # columns of the table of parameters
_OPTION = re.compile(r"\s*(- )?(\w+: )?(None|True|False)")  # a row of the table for an argument of a layer that is no array
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
    model = build.build_model(config, corpus.tokenizer, len(corpus.classes))
    plan = build.build_plan(config, model, len(corpus.train.labels))
    state = train_step.initial_state(plan, config)
    sections = {
        "Config": _config(config),
        "Parameters": _parameters(plan, state, corpus.target_length),
        "Work": _work(config, plan, corpus, state),
        "Memory": _memory(plan, state, corpus),
        "Disk": _disk(state, workdir),
    }
    return "\n\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in sections.items())


def _config(config: Config) -> list[str]:
    return [shlex.quote(f"--config.{field}={value}") for field, value in settings.flatten(config).items()]


def _parameters(plan: steps.Plan, state: steps.State, target_length: int | None) -> list[str]:
    return [
        *_table(plan, target_length),
        f"{size(state.params):,} parameters",
        "attention in a train step:",
        *(f"  {line}" for line in _grouped(build.attention_of(plan.model, target_length)) or ["none"]),
    ]


def _table(plan: steps.Plan, target_length: int | None) -> list[str]:
    """Returns the layers as a table in ASCII, which every terminal and file can show."""
    table = tabulate(
        plan.model,
        jax.random.key(0),
        depth=1,
        console_kwargs={"force_terminal": False, "width": _WIDTH},
        table_kwargs={"box": rich.box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False},
        column_kwargs={"overflow": "fold"},
    )(*(jnp.zeros((1, length), jnp.int32) for length in build.text_lengths(plan.model, target_length)))
    _, *rows, _ = (line.rstrip().replace("─", "-") for line in table.splitlines() if line.strip())  # without title and caption
    return [row for row in rows if not _OPTION.fullmatch(row)]


def _grouped(attention: Sequence[str]) -> list[str]:
    """Returns a line for all neighbouring layers with the same attention: for example "layers 1 to 4: dense"."""
    lines, first = [], 1
    for implementation, group in itertools.groupby(attention):
        last = first + len(list(group)) - 1
        lines.append(f"{f'layer {first}' if first == last else f'layers {first} to {last}'}: {implementation}")
        first = last + 1
    return lines


def size(tree: Any) -> int:
    """Returns the number of entries of the arrays of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _nbytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _work(config: Config, plan: steps.Plan, corpus: Corpus, state: steps.State) -> list[str]:
    examples, length = len(corpus.train.labels), plan.model.config.max_length
    per_epoch = -(-examples // config.batch_size)
    step = train_step.of_plan(plan, state, corpus.target_length)
    per_example, whole = step.flops / config.batch_size, config.epochs * per_epoch * step.flops
    most = "" if config.patience is None else "at most "
    lines = [
        devices.described(plan.devices),
        f"{examples:,} examples of up to {length:,} tokens, from a vocabulary of {plan.model.config.vocabulary_size:,}",
        f"batches of {config.batch_size:,}: {per_epoch:,} steps an epoch, {most}{config.epochs * per_epoch:,} "
        f"in {config.epochs:,} epochs",
        f"{scaled(step.flops, 'FLOP')} a step, {scaled(per_example, 'FLOP')} an example, "
        f"{most}{scaled(whole, 'FLOP')} in all, without evaluation",
        f"{scaled(step.transcendentals, '').strip()} results of exp, log and the like a step beside them",
    ]
    if config.seeds is not None:
        lines.append(f"{len(ranges.integers(config.seeds))} runs, one for each seed; all numbers here are of one of them")
    if plan.rows > config.batch_size:
        lines.append(f"a step computes {plan.rows:,} rows: the batch, rounded up to equal parts on the devices")
    if step.estimated:
        names = sorted(_ESTIMATES.get(name, name) for name in step.estimated)
        lines.append(f"estimated, or not counted where not known: {', '.join(names)}")
    return lines


def _memory(plan: steps.Plan, state: steps.State, corpus: Corpus) -> list[str]:
    """What the compiler says of a train step, for each device."""
    sums = jax.eval_shape(steps.Sums.zero)
    epoch = train_step.batch(plan, (-(-len(corpus.train.labels) // plan.batch_size),), corpus.target_length)
    analysis = steps.train.lower(plan, state, sums, epoch, 0, 1).compile().memory_analysis()
    if analysis is None:
        return ["not told by this backend"]
    parts = {
        "arguments": ("argument", "the state, and the batches of an epoch"),
        "results": ("output", "the state, in the memory of the old one"),
        "temporary": ("temp", "activations and gradients"),
    }
    sizes = {name: (getattr(analysis, f"{part}_size_in_bytes"), what) for name, (part, what) in parts.items()}
    return [f"{name:<9} {_mebibytes(size)} a device: {what}" for name, (size, what) in sizes.items()]


def _disk(state: steps.State, workdir: Path | None) -> list[str]:
    best = _nbytes(state.params)
    last = best + _nbytes(state.optimizer)
    kept = _KEPT["last"] * last + _KEPT["best"] * best
    lines = [
        f"arrays of a checkpoint: last {_mebibytes(last)} (parameters and optimizer), best {_mebibytes(best)} (parameters)",
        f"a run folder keeps {_KEPT['last']} of each: {_mebibytes(kept)}, and about 0.3 MiB of metadata and curves",
    ]
    if workdir is None:
        return lines
    existing = next(path for path in (workdir.absolute(), *workdir.absolute().parents) if os.access(path, os.F_OK))
    free = shutil.disk_usage(existing).free
    return [*lines, f"free at {workdir}: {_mebibytes(free)}{', which is too little' if free < kept else ''}"]


def _mebibytes(size: float) -> str:
    """Returns for example "77,753 MiB", "1.88 MiB" or "0.0227 MiB"."""
    mebibytes = size / 2**20
    return f"{mebibytes:,.0f} MiB" if mebibytes >= 100 else f"{mebibytes:.3g} MiB"


def scaled(value: float, unit: str) -> str:
    """Returns for example "1.23 GFLOP"."""
    rounded = int(float(f"{value:.3g}"))  # 999,900 is 1 M, not 1e+03 k
    power = min(6, (len(str(rounded)) - 1) // 3)
    return f"{rounded / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P', 'E'][power]}{unit}"
