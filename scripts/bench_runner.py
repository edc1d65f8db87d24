"""The time that a run takes in addition to its steps: for the start, the runner, the data and padding.

    python scripts/bench_runner.py                              # on the embedded corpus
    python scripts/bench_runner.py --data imdb --archive PATH   # on IMDB, prepared from the archive in a new folder

The rows of the table are:

- "start to first step": the time from the command to its first step, on a terminal; "cold" with an empty compilation cache,
  "warm" with the cache that the cold start has filled.
- "runner over bare steps": by how much an epoch of `train`, with progress and metrics, takes longer than the same steps in one
  call of the compiled program. The two run in turn. The time of the steps themselves varies by more than this difference, so
  there is also "of an epoch outside its steps": the part of an epoch that is spent outside of the compiled program, and the
  part of it that is spent in saving checkpoints.
- "archive to arrays" and "opening the arrays again", with --data imdb: each in its own process.
- "padding masked", with --data imdb: the time of whole reviews divided by that of trimmed ones, where padding is masked.
"""

import argparse
import dataclasses
import io
import os
import pty
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

from experiments import settings
from experiments.machine import devices
from experiments.machine.stopping import Signals
from experiments.report import tables
from experiments.storage import lock, provenance
from experiments.storage.metrics import Metrics
from experiments.storage.record import Written
from experiments.storage.saving import Saver
from experiments.training import build, drive, position, steps
from experiments.training.fit import Fit
from experiments.training.programs import Programs, Train
from experiments.training.progress import Progress
from scripts.contenders.ours import ours
from scripts.contenders.workload import Workload
from scripts.turns import WARM_UP, conditions, spread, time_in_turn

ROOT = Path(__file__).resolve().parent.parent


def seconds_to_first_step(model: str, data: str, folder: Path, environment: dict[str, str]) -> float:
    """The seconds from starting the command `train` to its first step. The process is then killed.

    Raises:
      RuntimeError: the command ended before its first step.
    """
    page = f"--config=configs/{model}.py" + (":verdicts" if data == "verdicts" else "")
    workdir = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-m", "experiments", "train", page, f"--workdir={workdir}", "--config.epochs=1"]
    parent_end, child_end = pty.openpty()
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=child_end, stderr=child_end)
    os.close(child_end)
    output = b""
    try:
        while b"Epoch" not in output:
            output += os.read(parent_end, 4096)
        return time.perf_counter() - started
    except OSError:  # the process has ended
        raise RuntimeError(f"{' '.join(command)}: {output.decode().strip()}") from None
    finally:
        process.kill()
        process.wait()
        os.close(parent_end)


def start_rows(model: str, data: str, rounds: int, folder: Path) -> list[list[str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    times: dict[str, list[float]] = {"cold": [], "warm": []}
    for index in range(rounds):
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / f"compiled{index}")}
        for seconds in times.values():
            seconds.append(seconds_to_first_step(model, data, folder, environment | cache))
    return [[model, f"start to first step, {name}, s", *spread(seconds)] for name, seconds in times.items()]


def runner_rows(model: str, data: str, rounds: int) -> list[list[str]]:
    """An epoch by the runner, with its progress line, its row and its checkpoints, and the same steps in one call."""
    config = settings.load_page(model, data)
    corpus = build.build_corpus(config)
    plan = build.build_plan(config, build.build_model(config, corpus.tokenizer), len(corpus.train.labels))
    start = position.initial(plan, config)
    signals = Signals()
    fit, programs = Fit(config, plan, corpus, start, signals), Programs(plan, corpus, signals)
    batches, outside, saving = fit.batches(1), [], []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def copied() -> position.Position:
        return start._replace(state=jax.tree.map(jnp.copy, start.state), sums=plan.replicate(steps.Sums.zero()))

    with tempfile.TemporaryDirectory() as folder, Metrics(Path(folder)) as metrics:
        progress = Progress(1, Terminal())

        def bare() -> None:
            at = copied()
            programs.answer([Train((0, 0), at.state, at.sums, batches, 0, fit.steps)])

        def whole() -> None:
            with lock.hold(Path(folder)) as held, provenance.attempt(Path(folder), 0) as attempt:
                fit.position, saver = copied(), TimedSaver(held, config, corpus, attempt, start)
                record = Written(Path(folder), metrics, saver)
                started = time.perf_counter()
                drive.drive({0: fit.train_epoch(record, progress)}, programs, signals)
                loss, accuracy = fit.position.sums.means()
                row = {"epoch": 1, "train_loss": loss, "train_accuracy": accuracy, "val_loss": loss, "val_accuracy": accuracy}
                row |= {"step_milliseconds": 1e3 * fit.position.seconds / fit.steps, "examples_per_second": 1.0}
                record.row(row)
                progress.epoch(row, 0)
                seconds = time.perf_counter() - started
                outside.append(100 * (1 - fit.position.seconds / seconds))
                saving.append(100 * saver.seconds / seconds)

        seconds = time_in_turn({"bare": bare, "whole": whole}, rounds)
    shares = [100 * (a / b - 1) for a, b in zip(seconds["whole"][WARM_UP:], seconds["bare"][WARM_UP:], strict=True)]
    unit = f"% ({fit.steps} steps)"
    return [
        [model, f"runner over bare steps, {unit}", *spread(shares)],
        [model, f"of an epoch outside its steps, {unit}", *spread(outside[WARM_UP:])],
        [model, f"of an epoch in saving checkpoints, {unit}", *spread(saving[WARM_UP:])],
    ]


class TimedSaver(Saver):
    """A saver that adds up the seconds of its saves."""

    seconds = 0.0

    def save(self, at: position.Position) -> None:
        started = time.perf_counter()
        super().save(at)
        self.seconds += time.perf_counter() - started


def data_rows(archive: str, rounds: int, folder: Path) -> list[list[str]]:
    code = "import sys, time; from pathlib import Path; from experiments.data import imdb_arrays; t = time.perf_counter(); "
    code += "imdb_arrays.load(data_dir=Path(sys.argv[1]), archive=Path(sys.argv[2])).test(); print(time.perf_counter() - t)"

    def load() -> float:
        command = [sys.executable, "-c", code, str(folder / "data"), archive]
        return float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)

    first, again = load(), [load() for _ in range(rounds)]
    return [
        ["imdb", "archive to arrays, s", *spread([first])],
        ["imdb", "opening the arrays again, s", *spread(again)],
    ]


def padding_rows(model: str, rounds: int) -> list[list[str]]:
    """IMDB with masked padding: the time of whole reviews divided by that of trimmed ones."""
    config = settings.load_page(model, "imdb")
    config.model.mask_padding = True
    corpus = build.build_corpus(config)
    classifier: Any = build.build_model(config, corpus.tokenizer)
    reviews = slice(4 * config.batch_size)
    workload = Workload(config, classifier.config, corpus.train.tokens[reviews], corpus.train.labels[reviews])
    plan = build.build_plan(config, classifier, len(workload.labels))
    whole, trimmed = ours(workload, dataclasses.replace(plan, lengths=plan.lengths[-1:])), ours(workload, plan)
    rows = []
    for what in ("train", "evaluate"):
        seconds = time_in_turn({"whole": getattr(whole, what), "trimmed": getattr(trimmed, what)}, rounds)
        ratios = [a / b for a, b in zip(seconds["whole"][WARM_UP:], seconds["trimmed"][WARM_UP:], strict=True)]
        rows.append([model, f"padding masked, {what}: whole / trimmed to {plan.lengths}", *spread(ratios)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=settings.MODELS, default=settings.MODELS)
    parser.add_argument("--data", choices=("verdicts", "imdb"), default="verdicts")
    parser.add_argument("--archive", help="the archive of IMDB; needed with --data imdb")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds={arguments.rounds} is not positive")
    if (arguments.data == "imdb") != (arguments.archive is not None):
        parser.error(f"--archive={arguments.archive} with --data={arguments.data}: imdb needs one, verdicts has none")
    devices.start()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.data == "imdb":
            os.environ["TFDS_DATA_DIR"] = str(folder / "data")
            rows += data_rows(arguments.archive, arguments.rounds, folder)
        for model in arguments.models:
            print(model, file=sys.stderr, flush=True)
            rows += start_rows(model, arguments.data, arguments.rounds, folder)
            rows += runner_rows(model, arguments.data, arguments.rounds)
            if arguments.data == "imdb":
                rows += padding_rows(model, arguments.rounds)
    print(conditions(f"data {arguments.data}", arguments.rounds, ()))
    print("\n" + tables.markdown(["model", "what", "median", "min", "max"], rows))


if __name__ == "__main__":
    main()
