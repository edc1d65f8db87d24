"""Compares the blog post's four training curves on IMDB with the range of our seeds.

A finished run is kept in the ledger, as `docs/reproduction/runs/MODEL-seed_K-HASH.jsonl`: a line with its config and result,
then one row per epoch. HASH is the fingerprint of its config. So the work can be spread over days and machines, and a run is
repeated if its config has changed.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import settings
from experiments.errors import DataError
from experiments.report import curves, tables
from experiments.settings import Config
from experiments.storage import files, run_folder
from experiments.training import train
from experiments.training.progress import duration

LEDGER = Path(__file__).parent.parent / "docs" / "reproduction"
MARGINS = {"val_loss": 0.02, "val_accuracy": 0.005}  # the band is widened by so many nats, and by this accuracy
RUN_SECONDS = 210  # the mean of the 24 runs of five seeds and the calibration, which took 84 minutes on two shared cores


class Finished(NamedTuple):
    """A finished run: its result and its rows."""

    result: dict[str, Any]
    rows: list[dict[str, Any]]


def reproduce(workdir: Path, seeds: int, data_dir: str | None, ledger: Path = LEDGER) -> None:
    """Trains the missing runs and writes `curves.png`, `curves.svg` and `table.md` to `workdir`.

    The runs are those of the four models with seeds 0 to `seeds` − 1, and with one more seed for the calibration.

    Args:
      workdir: The folder of the figure and the table, and of the run folders.
      seeds: How many seeds make the band.
      data_dir: The data directory of IMDB; see `imdb_location.data_directory`.
      ledger: The folder of `blog_curves.csv`, to which finished runs are added.

    Raises:
      DataError: IMDB cannot be prepared, or a finished run is damaged.
      UsageError: A run folder holds a finished run of another config.
    """
    planned = [_planned(model, seed, data_dir, workdir, ledger) for seed in range(seeds + 1) for model in settings.MODELS]
    missing = sum(not run.entry.exists() and not run_folder.is_finished(run.folder, run.config) for run in planned)
    print(_announcement(missing, len(planned)), flush=True)
    runs: dict[str, list[Finished]] = {model: [] for model in settings.MODELS}
    for run in planned:
        runs[run.model].append(_finish(run))
    blog = read_blog(ledger / "blog_curves.csv")
    workdir.mkdir(parents=True, exist_ok=True)
    curves.draw_curves(workdir, {model: [run.rows for run in done[:seeds]] for model, done in runs.items()}, blog)
    table = summary(runs, blog)
    (workdir / "table.md").write_text(table + "\n")
    print(f"\n{table}\n\nThe curves are in {workdir / 'curves.png'}.")


class Planned(NamedTuple):
    """A run that the reproduction needs."""

    model: str
    config: Config
    folder: Path
    entry: Path  # of the ledger


def _planned(model: str, seed: int, data_dir: str | None, workdir: Path, ledger: Path) -> Planned:
    config = settings.load_page(model, "imdb")
    config.seed, config.data.dir = seed, data_dir
    settings.check(config)
    entry = ledger / "runs" / f"{model}-seed_{seed}-{settings.fingerprint(config)}.jsonl"
    return Planned(model, config, workdir / model / f"seed_{seed}", entry)


def _announcement(missing: int, total: int) -> str:
    if not missing:
        return f"All {total} runs are finished: this takes a few seconds."
    time = duration(missing * RUN_SECONDS)
    return f"{missing} of {total} runs are missing: {time} on two CPU cores. It may be interrupted and started again."


def _finish(run: Planned) -> Finished:
    """Returns a run from the ledger, else from its folder, else trains it. It is in the ledger afterwards."""
    model, config, folder, entry = run
    if not entry.exists():
        if not run_folder.is_finished(folder, config):  # `train` refuses a folder with a run of another config
            print(f"\n{model}, seed {config.seed}", flush=True)
            train.train(config, folder, model)
        first = {"config": settings.flatten(config) | {"data.dir": None}, "result": run_folder.read_result(folder)}
        lines = [first, *_complete(folder, run_folder.read_rows(folder), config)]
        entry.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(entry, "".join(json.dumps(line) + "\n" for line in lines))
    try:
        first, *rows = map(json.loads, entry.read_text().splitlines())
        return Finished(first["result"], _complete(entry, rows, config))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{entry} is damaged: {error}; remove it to take the run from its folder or to repeat it") from None


def _complete(path: Path, rows: list[dict[str, Any]], config: Config) -> list[dict[str, Any]]:
    if len(rows) != config.epochs:
        raise DataError(f"{path} is damaged: it holds {len(rows)} of {config.epochs} epochs; remove it to make it again")
    return rows


def read_blog(path: Path) -> dict[str, list[dict[str, float]]]:
    """Returns the rows of the blog post by model."""
    blog: dict[str, list[dict[str, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            blog.setdefault(row.pop("model"), []).append({k: int(v) if k == "epoch" else float(v) for k, v in row.items()})
    return blog


def epochs_inside(curve: curves.Rows, seeds: Sequence[curves.Rows]) -> int:
    """Counts the epochs at which a curve lies in the band of the seeds.

    Args:
      curve: The rows of the curve.
      seeds: The rows of each seed. The band goes from their minimum to their maximum, widened by MARGINS.

    Returns:
      The number of epochs at which both the validation loss and the validation accuracy lie in the band.
    """

    def inside(epoch: int) -> bool:
        for column, margin in MARGINS.items():
            band = [rows[epoch][column] for rows in seeds]
            if not min(band) - margin <= curve[epoch][column] <= max(band) + margin:
                return False
        return True

    return sum(inside(epoch) for epoch in range(len(curve)))


def summary(runs: dict[str, list[Finished]], blog: dict[str, list[dict[str, float]]]) -> str:
    """Returns the table of the reproduction: accuracies in percent, ours as the mean over the seeds.

    Args:
      runs: The runs of each model, one for each seed. The last one calibrates: it is compared with the others as the blog is.
      blog: The rows of the blog post by model.
    """
    lines, total = [], [0, 0, 0]
    for model, (*seeds, sixth) in runs.items():
        curves, theirs = [run.rows for run in seeds], [row["val_accuracy"] for row in blog[model]]
        counts = [epochs_inside(blog[model], curves), epochs_inside(sixth.rows, curves), len(blog[model])]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        final, best, test = (
            _mean([run.result[key] for run in seeds]) for key in ("final_val_accuracy", "best_val_accuracy", "test_accuracy")
        )
        blog_cells = [f"{100 * theirs[-1]:.2f}", f"{100 * max(theirs):.2f}"]
        lines.append([model, blog_cells[0], final, blog_cells[1], best, test, *_inside(counts)])
    lines.append(["all", *[""] * 5, *_inside(total)])
    seed = len(next(iter(runs.values()))) - 1
    header = ["validation accuracy, %", "blog, final", "ours, final", "blog, best", "ours, best", "ours, test"]
    return tables.markdown([*header, "blog inside", f"our seed {seed} inside"], lines)


def _mean(values: Sequence[float]) -> str:
    return f"{100 * sum(values) / len(values):.2f}"


def _inside(counts: Sequence[int]) -> list[str]:
    blog, ours, epochs = counts
    return [f"{blog} of {epochs}", f"{ours} of {epochs}"]
