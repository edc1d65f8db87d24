"""The command `reproduce`: trains what is missing, and writes the figures and the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from matplotlib.figure import Figure

from experiments import settings
from experiments.errors import DataError, Refusal
from experiments.report import curves, figure_files
from experiments.reproduction import blog, figures, statistics, summary
from experiments.reproduction.statistics import Rows
from experiments.settings import Config
from experiments.storage import files, ledger, run_folder
from experiments.storage.ledger import Finished
from experiments.training import together
from experiments.training.progress import duration
from experiments.training.several_progress import SeveralProgress
from experiments.training.together import Member

RUN_SECONDS = 210  # the mean of 24 runs, which took 84 minutes on two shared cores
_TOGETHER_ON_CPU = 4  # runs, a quarter of an hour
PAGES = ("curves.png", "deviations.png", "table.md", "ranks.csv")  # what `docs/reproduction` has of the written files
BLOCK = "<!-- table.md -->\n", "<!-- end of table.md -->\n"  # its README.md has the tables between these lines


def reproduce(workdir: Path, seeds: int, data_dir: str | None, update_docs: bool = False, folder: Path = blog.FOLDER) -> None:
    """Trains the missing runs of the four models with seeds 0 to `seeds` − 1, and compares them with the blog.

    Args:
      workdir: Where the figures and the tables are written, and the run folders.
      seeds: How many seeds, at least 2.
      data_dir: The data directory of IMDB; see `imdb_location.data_directory`.
      update_docs: Whether to write the figures and the tables to `folder` too, and the tables into its README.md.
      folder: The folder of the pages, to whose ledger finished runs are added.

    Raises:
      DataError: IMDB cannot be prepared, or a finished run is damaged.
      UsageError: A run folder holds a finished run of another config.
    """
    planned = [_planned(model, seed, data_dir, workdir, folder) for seed in range(seeds) for model in settings.MODELS]
    missing = sum(not run.entry.exists() and not run_folder.is_finished(run.folder, run.config) for run in planned)
    print(_announcement(missing, len(planned)), flush=True)
    for group in _groups([run for run in planned if not run.entry.exists()]):
        _finish(group)
    runs = {model: [ledger.read(run.entry) for run in planned if run.model == model] for model in settings.MODELS}
    pages = make(runs, blog.read(folder / blog.CURVES))
    write(workdir, pages)
    print(f"\n{pages.table}\nThe curves are in {workdir / 'curves.png'}, the deviations in {workdir / 'deviations.png'}.")
    if update_docs:
        publish(workdir, folder)
        print(f"The pages in {folder} are up to date.")


class Pages(NamedTuple):
    """What is made of the finished runs."""

    table: str
    ranks: str
    curves: Figure
    deviations: Figure


def make(runs: Mapping[str, Sequence[Finished]], theirs: Mapping[str, Rows]) -> Pages:
    """Returns the tables and the figures of the finished runs of each model."""
    pooled = {model: statistics.pool(theirs[model], [run.rows for run in done]) for model, done in runs.items()}
    deviations = {model: statistics.deviations(values) for model, values in pooled.items()}
    return Pages(
        f"{summary.accuracies(runs, theirs)}\n\n{summary.comparison(deviations)}\n",
        summary.ranks(pooled, deviations),
        curves.curves_figure({model: [run.rows for run in done] for model, done in runs.items()}, theirs),
        figures.deviations_figure(deviations),
    )


def write(workdir: Path, pages: Pages) -> None:
    """Writes the files of PAGES, and both figures as SVG too."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "table.md").write_text(pages.table)
    (workdir / "ranks.csv").write_text(pages.ranks)
    figure_files.save(pages.curves, workdir / "curves")
    figure_files.save(pages.deviations, workdir / "deviations")


def publish(workdir: Path, folder: Path) -> None:
    """Copies what `write` has written to the folder of the pages, and its tables into README.md there.

    Raises:
      DataError: README.md does not have the two lines of BLOCK.
    """
    readme = folder / "README.md"
    before, first, rest = readme.read_text(encoding="utf-8").partition(BLOCK[0])
    _, last, after = rest.partition(BLOCK[1])
    if not first or not last:
        raise DataError(f"{readme} has no line {BLOCK[0].strip()} that a line {BLOCK[1].strip()} follows")
    for name in PAGES:
        files.write_whole(folder / name, (workdir / name).read_bytes())
    files.write_whole(readme, f"{before}{first}\n{(workdir / 'table.md').read_text()}\n{last}{after}")


class Planned(NamedTuple):
    """A run that the reproduction needs."""

    model: str
    config: Config
    folder: Path
    entry: Path  # of the ledger


def _planned(model: str, seed: int, data_dir: str | None, workdir: Path, folder: Path) -> Planned:
    config = settings.load_page(model, "imdb")
    config.seed, config.data.dir = seed, data_dir
    settings.check(config)
    return Planned(model, config, workdir / model / f"seed_{seed}", ledger.entry_of(folder / blog.RUNS, model, config))


def _announcement(missing: int, total: int) -> str:
    if not missing:
        return f"All {total} runs are finished: this takes a few seconds."
    time = duration(missing * RUN_SECONDS)
    return f"{missing} of {total} runs are missing: {time} on two CPU cores. It may be interrupted and started again."


def _groups(runs: Sequence[Planned]) -> list[list[Planned]]:
    """Returns the runs that one program trains: of one model, and on a CPU not so many that none is finished for hours."""
    most = _TOGETHER_ON_CPU if jax.default_backend() == "cpu" else len(runs)
    groups = []
    for first in range(0, len(runs), most * len(settings.MODELS)):
        part = runs[first : first + most * len(settings.MODELS)]
        groups += [found for model in settings.MODELS if (found := [run for run in part if run.model == model])]
    return groups


def _finish(group: Sequence[Planned]) -> None:
    """Trains the runs of a model that are not finished in their folders, and adds all to the ledger."""
    names = [f"seed {run.config.seed}" for run in group]
    print(f"\n{group[0].model}: {', '.join(names)}", flush=True)
    members = [Member(run.config, run.folder) for run in group]
    outcomes = together.train(members, group[0].model, SeveralProgress(group[0].config.epochs, names))
    failures: list[Exception] = []
    for run, outcome in zip(group, outcomes, strict=True):
        try:
            if isinstance(outcome, Exception):
                raise outcome
            ledger.write(run.entry, run.config, Finished(outcome, run_folder.read_rows(run.folder)), run.folder)
        except (Refusal, OSError) as error:
            failures.append(error)
    if failures:
        raise failures[0]
