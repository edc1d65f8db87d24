"""The bookkeeping of the reproduction, with runs that nobody trained and numbers worked by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from experiments import reproduce, settings
from experiments.errors import DataError, UsageError
from experiments.storage import files, run_folder
from experiments.training import train


def curve(*points: tuple[float, float]) -> list[dict[str, Any]]:
    """Validation loss and accuracy of each epoch."""
    return [
        {"epoch": e, "train_loss": loss, "train_accuracy": accuracy, "val_loss": loss, "val_accuracy": accuracy}
        for e, (loss, accuracy) in enumerate(points, start=1)
    ]


SEEDS = [curve((0.5, 0.7), (0.4, 0.8), (0.3, 0.85)), curve((0.6, 0.72), (0.41, 0.81), (0.31, 0.86))]


@pytest.mark.parametrize(
    ("points", "inside"),
    [
        ([(0.55, 0.71), (0.405, 0.805), (0.305, 0.855)], 3),
        ([(0.485, 0.696), (0.425, 0.814), (0.285, 0.864)], 3),  # in the margins of 0.02 and 0.005
        ([(0.47, 0.71), (0.405, 0.805), (0.305, 0.855)], 2),  # a loss below the first band
        ([(0.63, 0.71), (0.44, 0.805), (0.305, 0.855)], 1),  # losses above
        ([(0.55, 0.694), (0.405, 0.816), (0.305, 0.855)], 1),  # accuracies below and above
        ([(0.305, 0.855), (0.405, 0.805), (0.55, 0.71)], 1),  # the epochs in the wrong order
        ([(0.55, 0.71)], 1),
        ([], 0),
    ],
)
def test_epochs_inside(points: list[tuple[float, float]], inside: int):
    assert reproduce.epochs_inside(curve(*points), SEEDS) == inside


def test_summary():
    def run(points: list[dict[str, Any]], final: float, best: float, test: float) -> reproduce.Finished:
        return reproduce.Finished({"final_val_accuracy": final, "best_val_accuracy": best, "test_accuracy": test}, points)

    outside = curve((0.55, 0.71), (0.9, 0.1), (0.9, 0.1))
    runs = {
        "one": [run(SEEDS[0], 0.85, 0.85, 0.8), run(SEEDS[1], 0.86, 0.87, 0.81), run(outside, 0.0, 0.0, 0.0)],
        "two": [run(SEEDS[0], 0.5, 0.6, 0.7), run(SEEDS[1], 0.5, 0.6, 0.7), run(SEEDS[1], 0.0, 0.0, 0.0)],
    }
    blog = {"one": curve((0.55, 0.71), (0.405, 0.885), (0.305, 0.855)), "two": outside[:2]}
    header, rule, *lines = (line.strip("|").split("|") for line in reproduce.summary(runs, blog).splitlines())
    assert [cell.strip() for cell in header] == [
        "validation accuracy, %", "blog, final", "ours, final", "blog, best", "ours, best", "ours, test",
        "blog inside", "our seed 2 inside",
    ]  # fmt: skip
    assert len(rule) == 8
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["one", "85.50", "85.50", "88.50", "86.00", "80.50", "2 of 3", "1 of 3"],
        ["two", "10.00", "50.00", "71.00", "60.00", "70.00", "1 of 2", "3 of 2"],
        ["all", "", "", "", "", "", "3 of 5", "4 of 5"],
    ]


def test_the_blog_is_read():
    """The file of the repository: four curves, an epoch a row."""
    blog = reproduce.read_blog(reproduce.LEDGER / "blog_curves.csv")
    assert blog.keys() == set(settings.MODELS)
    for model, rows in blog.items():
        assert [row["epoch"] for row in rows] == list(range(1, settings.load_page(model, "imdb").epochs + 1))
        assert all(0 < row["val_loss"] < 1 and 0.4 < row["val_accuracy"] < 1 for row in rows)


def fake_train(config: settings.Config, workdir: Path) -> None:
    """Leaves what a run of this config would leave, with numbers that tell its seed."""
    workdir.mkdir(parents=True, exist_ok=True)
    run_folder.refuse_other(workdir, config)
    files.write_json(workdir / "config.json", config.to_dict())
    rows = curve(*[(0.5 + 0.01 * config.seed, 0.8)] * config.epochs)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = {"final_val_accuracy": 0.8, "best_val_accuracy": 0.8, "test_accuracy": 0.75 + 0.01 * config.seed}
    files.write_json(workdir / "result.json", result)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger with the blog's curves and no run."""
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "blog_curves.csv").write_bytes((reproduce.LEDGER / "blog_curves.csv").read_bytes())
    return tmp_path / "ledger"


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes most of a test's time."""
    monkeypatch.setattr(reproduce.curves, "draw_curves", lambda *_: None)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were trained in."""
    names: list[str] = []

    def record(config: settings.Config, workdir: Path, label: str) -> None:
        assert label == workdir.parts[-2]
        names.append("/".join(workdir.parts[-2:]))
        fake_train(config, workdir)

    monkeypatch.setattr(train, "train", record)
    return names


def test_only_what_is_missing_is_trained(
    ledger: Path, trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, request: pytest.FixtureRequest
):
    work = tmp_path / "work"
    reproduce.reproduce(work, 1, None, ledger)
    assert trained == [f"{model}/seed_{seed}" for seed in (0, 1) for model in settings.MODELS], "seed by seed"
    written = tiny.tree(ledger / "runs")
    assert len(written) == 8
    out = capsys.readouterr().out
    assert out.startswith("8 of 8 runs are missing: about 28 minutes on two CPU cores.")
    assert {"curves.png", "curves.svg", "table.md"} <= {path.name for path in work.iterdir()}
    table = (work / "table.md").read_text()
    assert table in out
    assert table.count(" 75.00 |") == 4, "the mean over the seeds, without the calibrating one"
    request.getfixturevalue("without_figures")

    trained.clear()
    reproduce.reproduce(tmp_path / "elsewhere", 1, "/data", ledger)  # another folder, and the data in another place
    assert trained == []
    assert capsys.readouterr().out.startswith("All 8 runs are finished: this takes a few seconds.")
    assert (tmp_path / "elsewhere" / "table.md").read_text() == table

    missing = next(name for name in written if name.startswith("transformer-seed_1-"))
    (ledger / "runs" / missing).unlink()
    reproduce.reproduce(tmp_path / "elsewhere", 1, None, ledger)
    assert trained == ["transformer/seed_1"]
    (ledger / "runs" / missing).unlink()
    reproduce.reproduce(tmp_path / "elsewhere", 1, None, ledger)
    assert trained == ["transformer/seed_1"], "its folder was finished"
    assert tiny.tree(ledger / "runs") == written

    reproduce.reproduce(work, 2, None, ledger)
    assert trained[1:] == [f"{model}/seed_2" for model in settings.MODELS]


@pytest.mark.usefixtures("without_figures")
def test_an_entry_holds_config_result_and_rows(ledger: Path, trained: list[str], tmp_path: Path):
    reproduce.reproduce(tmp_path / "work", 1, "/some/where", ledger)
    config = settings.load_page("single_head", "imdb")
    config.seed = 1
    entry = ledger / "runs" / f"single_head-seed_1-{settings.fingerprint(config)}.jsonl"
    first, *rows = map(json.loads, entry.read_text().splitlines())
    assert first["config"] == json.loads(json.dumps(settings.flatten(config))), "without the path of the data"
    assert first["result"]["test_accuracy"] == 0.76
    assert rows == run_folder.read_rows(tmp_path / "work" / "single_head" / "seed_1")
    assert len(rows) == config.epochs == 20


def test_a_finished_run_of_another_config_is_kept(ledger: Path, trained: list[str], tmp_path: Path):
    config = settings.load_page("single_head", "imdb")
    config.learning_rate = 0.5
    folder = tmp_path / "work" / "single_head" / "seed_0"
    fake_train(config, folder)
    before = tiny.tree(folder)
    with pytest.raises(
        UsageError,
        match=r"seed_0 holds a run of another config: learning_rate is 0.5 there and 0.001 here; choose another folder$",
    ):
        reproduce.reproduce(tmp_path / "work", 1, None, ledger)
    assert tiny.tree(folder) == before
    assert not (ledger / "runs").exists()


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_an_entry_is_written_whole_or_not_at_all(
    broken: str, ledger: Path, trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk fills up half way, or the machine refuses the new name."""
    whole = getattr(Path, broken)

    def fail(path: Path, argument: Any) -> None:
        if ".jsonl" not in path.name or ledger not in path.parents:
            return whole(path, argument)
        if broken == "write_bytes":
            whole(path, argument[: len(argument) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        reproduce.reproduce(tmp_path / "work", 1, None, ledger)
    assert trained == ["single_head/seed_0"]
    assert not list((ledger / "runs").iterdir())
    monkeypatch.setattr(Path, broken, whole)
    reproduce.reproduce(tmp_path / "work", 1, None, ledger)
    assert trained.count("single_head/seed_0") == 1, "the run itself was not lost"


@pytest.mark.parametrize("content", ["", "{", '{"config": {}}\n', "[]\n", '{"result": {}}\n{"epoch": 1}\n'])
def test_a_damaged_entry_is_refused(content: str, ledger: Path, trained: list[str], tmp_path: Path):
    entry = ledger / "runs" / f"single_head-seed_0-{settings.fingerprint(settings.load_page('single_head', 'imdb'))}.jsonl"
    entry.parent.mkdir()
    entry.write_text(content)
    with pytest.raises(DataError, match=f"^{entry} is damaged: .*; remove it to ") as refused:
        reproduce.reproduce(tmp_path / "work", 1, None, ledger)
    assert len(str(refused.value).splitlines()) == 1
    assert trained == []


def test_a_damaged_folder_does_not_enter_the_ledger(ledger: Path, trained: list[str], tmp_path: Path):
    config = settings.load_page("single_head", "imdb")
    folder = tmp_path / "work" / "single_head" / "seed_0"
    fake_train(config, folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    for damaged, message in (("".join(lines[:-1]), "it holds 19 of 20 epochs"), ('{"epoch": 1', "is damaged")):
        (folder / "metrics.jsonl").write_text(damaged)
        with pytest.raises(DataError, match=message):
            reproduce.reproduce(tmp_path / "work", 1, None, ledger)
    assert trained == []
    assert not (ledger / "runs").exists()
