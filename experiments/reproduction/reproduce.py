"""The command `reproduce`: trains what is missing, and writes the figures and the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from experiments import settings
from experiments.errors import DataError
from experiments.report import curves, figure_files
from experiments.reproduction import figures, ledger, statistics, summary
from experiments.reproduction.ledger import LEDGER, Finished
from experiments.reproduction.statistics import Rows
from experiments.settings import Config
from experiments.storage import files, run_folder
from experiments.training import train
from experiments.training.metrics import duration

RUN_SECONDS = 210  # the mean of 24 runs, which took 84 minutes on two shared cores
PAGES = ("curves.png", "deviations.png", "table.md", "ranks.csv")  # what `docs/reproduction` has of the written files
BLOCK = "<!-- table.md -->\n", "<!-- end of table.md -->\n"  # its README.md has the tables between these lines


def reproduce(workdir: Path, seeds: int, data_dir: str | None, update_docs: bool = False, folder: Path = LEDGER) -> None:
    """Trains the missing runs of the four models with seeds 0 to `seeds` − 1, and compares them with the blog.

    Args:
      workdir: Where the figures and the tables are written, and the run folders.
      seeds: How many seeds, at least 2.
      data_dir: The data directory of IMDB; see `imdb_location.data_directory`.
      update_docs: Whether to write the figures and the tables to `folder` too, and the tables into its README.md.
      folder: The folder of `blog_curves.csv`, to which finished runs are added.

    Raises:
      DataError: IMDB cannot be prepared, or a finished run is damaged.
      UsageError: A run folder holds a finished run of another config.
    """
    planned = [_planned(model, seed, data_dir, workdir, folder) for seed in range(seeds) for model in settings.MODELS]
    missing = sum(not run.entry.exists() and not run_folder.is_finished(run.folder, run.config) for run in planned)
    print(_announcement(missing, len(planned)), flush=True)
    runs: dict[str, list[Finished]] = {model: [] for model in settings.MODELS}
    for run in planned:
        runs[run.model].append(_finish(run))
    pages = make(runs, ledger.read_blog(folder / "blog_curves.csv"))
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


def make(runs: Mapping[str, Sequence[Finished]], blog: Mapping[str, Rows]) -> Pages:
    """Returns the tables and the figures of the finished runs of each model."""
    pooled = {model: statistics.pool(blog[model], [run.rows for run in done]) for model, done in runs.items()}
    deviations = {model: statistics.deviations(values) for model, values in pooled.items()}
    return Pages(
        f"{summary.accuracies(runs, blog)}\n\n{summary.comparison(deviations)}\n",
        summary.ranks(pooled, deviations),
        curves.curves_figure({model: [run.rows for run in done] for model, done in runs.items()}, blog),
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
    return Planned(model, config, workdir / model / f"seed_{seed}", ledger.entry_of(folder, model, config))


def _announcement(missing: int, total: int) -> str:
    if not missing:
        return f"All {total} runs are finished: this takes a few seconds."
    time = duration(missing * RUN_SECONDS)
    return f"{missing} of {total} runs are missing: {time} on two CPU cores. It may be interrupted and started again."


def _finish(run: Planned) -> Finished:
    """Returns a run from the ledger, else from its folder, else trains it. It is in the ledger afterwards."""
    if not run.entry.exists():
        if not run_folder.is_finished(run.folder, run.config):  # `train` refuses a folder with a run of another config
            print(f"\n{run.model}, seed {run.config.seed}", flush=True)
            train.train(run.config, run.folder, run.model)
        finished = Finished(run_folder.read_result(run.folder), run_folder.read_rows(run.folder))
        ledger.write(run.entry, run.config, finished, run.folder)
    return ledger.read(run.entry)
