"""How far the same step and the same run are apart on 1, 2 and 8 devices, and on 2 processes of 2 devices.

    python scripts/device_agreement.py --epochs 4

The devices are virtual ones of this CPU. The table shows the difference of each from one device: of the loss and of the
gradient of one step, over the largest entry; and the largest difference of the validation loss over the epochs of a run. The
last rows are runs on one device whose first parameters differ from the others' by one unit in the last place, up or down by
chance: no agreement can be expected to be better than theirs. Dropout is on.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from experiments import settings
from experiments.machine import devices, processes
from experiments.report import tables
from experiments.training import build, position, steps
from experiments.training.steps import Batches

COUNTS = (1, 2, 8)
PROCESSES, DEVICES = 2, 2
MOVED = 4  # runs that start one unit in the last place away
_SECONDS = 600


class Outcome(NamedTuple):
    """The loss and the gradient of the first step, and the validation loss after each epoch."""

    loss: float
    gradient: np.ndarray  # [parameters]
    curve: np.ndarray  # [epochs]


def outcome(count: int, epochs: int, examples: int, ulps: int | None = None, seed: int = 0) -> Outcome:
    """Trains the transformer on the first reviews of the embedded corpus.

    Args:
      count: The number of devices, all of which must be here.
      epochs: The number of epochs.
      examples: The number of reviews.
      ulps: The seed by which each parameter is moved by one unit in the last place; None moves none.
      seed: That of the run.
    """
    config = settings.load_page("transformer", "verdicts")
    config.devices, config.seed = count, seed
    corpus = build.build_corpus(config)
    plan = build.build_plan(config, build.build_model(config, corpus.tokenizer), examples)
    state, curve = position.initial(plan, config).state, []
    if ulps is not None:
        towards = np.random.default_rng(ulps)
        moved = jax.tree.map(lambda x: np.nextafter(x, towards.choice(np.array([-9, 9], np.float32), x.shape)), state.params)
        state = state._replace(params=plan.replicate(moved))
    validation, first = plan.split(corpus.validation.tokens, corpus.validation.labels), None
    for epoch in range(epochs):
        order = np.asarray(steps.epoch_order(plan, jax.random.key(config.seed), epoch, examples))
        batches: Batches = plan.batches(corpus.train.tokens, corpus.train.labels, order)
        if first is None:
            gradient, step_sums = jax.jit(steps.mean_gradient, static_argnums=0)(plan, state, steps.at(batches, 0))
            first = step_sums.means()[0], np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
        state, _, _ = steps.train(plan, state, plan.replicate(steps.Sums.zero()), batches, 0, len(order))
        curve.append(steps.evaluate(plan, state.params, validation).means()[0])
    assert first is not None
    return Outcome(first[0], first[1], np.array(curve))


def differences(found: Outcome, reference: Outcome) -> tuple[float, float, float]:
    """Those of the loss and of the gradient, over the largest entry, and the largest one of the curves."""
    pairs = zip(found[:2], reference[:2], strict=True)
    loss, gradient = (float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
    return loss, gradient, float(np.abs(found.curve - reference.curve).max())


def child(arguments: argparse.Namespace) -> None:
    """Computes some of the outcomes and writes them to a file."""
    if arguments.index is not None:
        processes.join(f"localhost:{arguments.port}", PROCESSES, arguments.index)
    devices.start()
    sizes = arguments.epochs, arguments.examples
    if arguments.index is None:
        found = {f"{count} devices": outcome(count, *sizes) for count in COUNTS}
        found |= {f"one unit in the last place, {seed}": outcome(1, *sizes, ulps=seed) for seed in range(MOVED)}
    else:
        found = {f"{PROCESSES} processes of {DEVICES} devices": outcome(PROCESSES * DEVICES, *sizes)}
    if processes.is_writer():
        arrays = {f"{name}/{field}": array for name, each in found.items() for field, array in each._asdict().items()}
        np.savez(arguments.child, **arrays)


def all_outcomes(epochs: int, examples: int) -> dict[str, Outcome]:
    """Those of every number of devices and processes, by name, each computed in processes of its own."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
        free.close()

        def start(name: str, count: int, *flags: str) -> subprocess.Popen:
            command = [sys.executable, __file__, "--epochs", str(epochs), "--examples", str(examples)]
            environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(count)}
            return subprocess.Popen([*command, "--child", f"{folder}/{name}.npz", *flags], env=environment)

        alone = [start("alone", max(COUNTS))]
        joined = [start("joined", DEVICES, "--port", port, "--index", str(index)) for index in range(PROCESSES)]
        for process in alone + joined:
            if code := process.wait(_SECONDS):
                raise RuntimeError(f"a process has ended with {code}")
        arrays: dict[str, np.ndarray] = {}
        for name in ("alone", "joined"):
            arrays |= dict(np.load(f"{folder}/{name}.npz", allow_pickle=False))
    names = dict.fromkeys(name.partition("/")[0] for name in arrays)
    return {n: Outcome(float(arrays[f"{n}/loss"]), arrays[f"{n}/gradient"], arrays[f"{n}/curve"]) for n in names}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares a step and a run on several numbers of devices and processes.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments)
    found = all_outcomes(arguments.epochs, arguments.examples)
    reference = found.pop("1 devices")
    rows = [[name, *(f"{value:.1e}" for value in differences(each, reference))] for name, each in found.items()]
    print(tables.markdown(["against one device", "loss", "gradient", f"curve of {arguments.epochs} epochs"], rows))
    return None


if __name__ == "__main__":
    main()
