"""The pages of the reproduction, `docs/reproduction`: they are what the committed runs give."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments import settings
from experiments.report import figure_files
from experiments.reproduction import blog, reproduce
from experiments.storage import ledger
from experiments.storage.ledger import Finished

AGAIN = "python -m experiments reproduce --seeds=N --workdir=runs/reproduce --update_docs"


def finished(folder: Path) -> dict[str, list[Finished]]:
    """The runs of the seeds 0 to N − 1, for the largest N of which the ledger has the runs of all four models."""
    runs: dict[str, list[Finished]] = {model: [] for model in settings.MODELS}
    for seed in range(1000):
        entries = []
        for model in settings.MODELS:
            config = settings.load_page(model, "imdb")
            config.seed = seed
            entries.append(ledger.entry_of(folder / blog.RUNS, model, config))
        if not all(entry.exists() for entry in entries):
            break
        for model, entry in zip(settings.MODELS, entries, strict=True):
            runs[model].append(ledger.read(entry))
    return runs


def stale(folder: Path) -> list[str]:
    """The pages of a folder that are not what its runs give."""
    pages = reproduce.make(finished(folder), blog.read(folder / blog.CURVES))
    matches = {
        "table.md": (folder / "table.md").read_text() == pages.table,
        "README.md": "\n".join((reproduce.BLOCK[0], pages.table, reproduce.BLOCK[1])) in (folder / "README.md").read_text(),
        "ranks.csv": (folder / "ranks.csv").read_text() == pages.ranks,
        "curves.png": figure_files.drawn_in(folder / "curves.png") == figure_files.drawn(pages.curves),
        "deviations.png": figure_files.drawn_in(folder / "deviations.png") == figure_files.drawn(pages.deviations),
    }
    assert {*reproduce.PAGES, "README.md"} == matches.keys()
    return [name for name, match in matches.items() if not match]


def test_the_pages_are_those_of_the_committed_runs():
    assert len(finished(blog.FOLDER)["transformer"]) >= 3
    assert stale(blog.FOLDER) == [], f"write them again: {AGAIN}"


LEDGERS = (blog.FOLDER / "runs", blog.FOLDER.parent / "head-ablation" / "runs")


@pytest.mark.parametrize("runs", LEDGERS, ids=lambda path: path.parent.name)
def test_the_runs_are_under_version_control(runs: Path):
    """Otherwise a new clone trains them again. All of them, since pages might be made from one that is not."""
    try:
        command = ["git", "ls-files", "."]
        listed = subprocess.run(command, cwd=runs, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: git knows which files are part of the repository")
    assert sorted(listed.splitlines()) == sorted(path.name for path in runs.iterdir())


@pytest.mark.parametrize("runs", LEDGERS, ids=lambda path: path.parent.name)
def test_every_entry_is_whole_and_has_its_name(runs: Path):
    entries = sorted(runs.iterdir())
    assert entries
    for entry in entries:
        run = ledger.read(entry)
        assert entry.name.partition("-seed_")[0] == run.result["label"]
        assert json.loads(entry.read_text().partition("\n")[0])["config"]["data.dir"] is None


@pytest.mark.parametrize(
    ("column", "pages"),
    [
        ("train_loss", ["curves.png"]),
        ("train_accuracy", ["curves.png"]),
        ("val_loss", ["ranks.csv", "curves.png", "deviations.png"]),
        ("val_accuracy", ["ranks.csv", "curves.png", "deviations.png"]),
        (None, ["table.md", "README.md", "ranks.csv", "curves.png", "deviations.png"]),
    ],
)
def test_another_run_would_show(column: str | None, pages: list[str], tmp_path: Path):
    """One number of one run, which the tables may round away, or a seed less."""
    shutil.copytree(blog.FOLDER, tmp_path / "docs")
    runs = tmp_path / "docs" / "runs"
    last = len(finished(blog.FOLDER)["transformer"]) - 1
    entry = next(runs.glob(f"transformer-seed_{last}-*.jsonl"))
    if column is None:
        entry.unlink()
    else:
        first, *rows = map(json.loads, entry.read_text().splitlines())
        rows[3][column] += 0.02
        entry.write_text("".join(json.dumps(line) + "\n" for line in (first, *rows)))
    assert [page for page in stale(tmp_path / "docs") if page in pages] == pages


def test_a_picture_without_a_digest_is_not_taken(tmp_path: Path):
    """Such as one that was drawn before there were digests."""
    shutil.copytree(blog.FOLDER, tmp_path / "docs")
    with figure_files.Image.open(tmp_path / "docs" / "curves.png") as image:
        image.save(tmp_path / "docs" / "curves.png")
    assert stale(tmp_path / "docs") == ["curves.png"]
