"""The bookkeeping of the reproduction, with runs that nobody trained and numbers worked by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny

from experiments import settings
from experiments.errors import DataError, UsageError
from experiments.reproduction import blog, reproduce, statistics, summary
from experiments.storage import files, ledger, run_folder
from experiments.training import together
from experiments.training.several_progress import SeveralProgress
from experiments.training.together import Member


def curve(*points: tuple[float, float]) -> list[dict[str, Any]]:
    """Validation loss and accuracy of each epoch."""
    return [
        {"epoch": e, "train_loss": loss, "train_accuracy": accuracy, "val_loss": loss, "val_accuracy": accuracy}
        for e, (loss, accuracy) in enumerate(points, start=1)
    ]


def test_the_blog_is_read():
    """The file of the repository: four curves, an epoch a row."""
    theirs = blog.read()
    assert theirs.keys() == set(settings.MODELS)
    for model, rows in theirs.items():
        assert [row["epoch"] for row in rows] == list(range(1, settings.load_page(model, "imdb").epochs + 1))
        assert all(0 < row["val_loss"] < 1 and 0.4 < row["val_accuracy"] < 1 for row in rows)


def fake_train(config: settings.Config, workdir: Path) -> None:
    """Leaves what a run of this config would leave, with numbers that tell its seed."""
    workdir.mkdir(parents=True, exist_ok=True)
    run_folder.refuse_other(workdir, config)
    files.write_json(workdir / "config.json", config.to_dict())
    rows = curve(*[(0.5 + 0.01 * config.seed, 0.8)] * config.epochs)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = {f"{which}_{name}": rows[-1][name] for which in ("final", "best") for name in ("val_loss", "val_accuracy")}
    result = last | {"test_loss": 0.6, "test_accuracy": 0.75 + 0.01 * config.seed}
    files.write_json(workdir / "result.json", result)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder of pages with the blog's curves and no run."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "blog_curves.csv").write_bytes((blog.FOLDER / "blog_curves.csv").read_bytes())
    return tmp_path / "docs"


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes most of a test's time: empty files take their places."""
    monkeypatch.setattr(reproduce.figure_files, "save", lambda _, path: path.with_suffix(".png").touch())


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were trained in."""
    names: list[str] = []

    def record(members: Sequence[Member], label: str, _: SeveralProgress) -> list[dict[str, Any]]:
        for config, workdir in members:
            assert label == workdir.parts[-2]
            if not run_folder.is_finished(workdir, config):
                names.append("/".join(workdir.parts[-2:]))
                fake_train(config, workdir)
        return [run_folder.read_result(member.workdir) for member in members]

    monkeypatch.setattr(together, "train", record)
    return names


def test_only_what_is_missing_is_trained(
    docs: Path, trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, request: pytest.FixtureRequest
):
    work = tmp_path / "work"
    reproduce.reproduce(work, 2, None, folder=docs)
    assert trained == [f"{model}/seed_{seed}" for model in settings.MODELS for seed in (0, 1)], "model by model"
    written = tiny.tree(docs / "runs")
    assert len(written) == 8
    out = capsys.readouterr().out
    assert out.startswith("8 of 8 runs are missing: about 28 minutes on two CPU cores.")
    assert {*reproduce.PAGES, "curves.svg", "deviations.svg"} <= {path.name for path in work.iterdir()}
    table = (work / "table.md").read_text()
    assert table in out
    assert table.count(" 75.50 (75.00 to 76.00) |") == 4
    request.getfixturevalue("without_figures")

    trained.clear()
    reproduce.reproduce(tmp_path / "elsewhere", 2, "/data", folder=docs)  # another folder, and the data in another place
    assert trained == []
    assert capsys.readouterr().out.startswith("All 8 runs are finished: this takes a few seconds.")
    assert (tmp_path / "elsewhere" / "table.md").read_text() == table

    missing = next(name for name in written if name.startswith("transformer-seed_1-"))
    (docs / "runs" / missing).unlink()
    reproduce.reproduce(tmp_path / "elsewhere", 2, None, folder=docs)
    assert trained == ["transformer/seed_1"]
    (docs / "runs" / missing).unlink()
    reproduce.reproduce(tmp_path / "elsewhere", 2, None, folder=docs)
    assert trained == ["transformer/seed_1"], "its folder was finished"
    assert tiny.tree(docs / "runs") == written

    reproduce.reproduce(work, 3, None, folder=docs)
    assert trained[1:] == [f"{model}/seed_2" for model in settings.MODELS]


@pytest.mark.usefixtures("without_figures")
def test_an_entry_holds_config_result_and_rows(docs: Path, trained: list[str], tmp_path: Path):
    reproduce.reproduce(tmp_path / "work", 2, "/some/where", folder=docs)
    config = settings.load_page("single_head", "imdb")
    config.seed = 1
    entry = docs / "runs" / f"single_head-seed_1-{settings.fingerprint(config)}.jsonl"
    first, *rows = map(json.loads, entry.read_text().splitlines())
    assert first["config"] == json.loads(json.dumps(settings.flatten(config))), "without the path of the data"
    assert first["result"]["test_accuracy"] == 0.76
    assert rows == run_folder.read_rows(tmp_path / "work" / "single_head" / "seed_1")
    assert len(rows) == config.epochs == 20


def test_a_finished_run_of_another_config_is_kept(docs: Path, trained: list[str], tmp_path: Path):
    config = settings.load_page("single_head", "imdb")
    config.learning_rate = 0.5
    folder = tmp_path / "work" / "single_head" / "seed_0"
    fake_train(config, folder)
    before = tiny.tree(folder)
    with pytest.raises(
        UsageError,
        match=r"seed_0 holds a run of another config: learning_rate is 0.5 there and 0.001 here; choose another folder$",
    ):
        reproduce.reproduce(tmp_path / "work", 2, None, folder=docs)
    assert tiny.tree(folder) == before
    assert not (docs / "runs").exists()


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_an_entry_is_written_whole_or_not_at_all(
    broken: str, docs: Path, trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk fills up half way, or the machine refuses the new name."""
    whole = getattr(Path, broken)

    def fail(path: Path, argument: Any) -> None:
        if ".jsonl" not in path.name or docs not in path.parents:
            return whole(path, argument)
        if broken == "write_bytes":
            whole(path, argument[: len(argument) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        reproduce.reproduce(tmp_path / "work", 2, None, folder=docs)
    assert trained == ["single_head/seed_0", "single_head/seed_1"]
    assert not list((docs / "runs").iterdir())
    monkeypatch.setattr(Path, broken, whole)
    reproduce.reproduce(tmp_path / "work", 2, None, folder=docs)
    assert trained.count("single_head/seed_0") == 1, "the run itself was not lost"


def entry_of(docs: Path) -> Path:
    return ledger.entry_of(docs / blog.RUNS, "single_head", settings.load_page("single_head", "imdb"))


DAMAGES = {  # what is replaced in an entry, by what, and what is said of it
    "another config": ('"learning_rate": 0.001', '"learning_rate": 0.002', "the config in it is that of seed_0-[0-9a-f]{12}"),
    "another seed": ('"seed": 0', '"seed": 1', "the config in it is that of seed_1-[0-9a-f]{12}"),
    "a field less": ('"model.positions"', '"model.position"', "the config in it is that of seed_0-"),
    "no result": ('"result"', '"results"', "line 1: result is missing"),
    "an epoch twice": ('"epoch": 7,', '"epoch": 6,', "line 8: epoch 6 where 7 must be"),
    "not a number": ('"val_loss": 0.5', '"val_loss": NaN', "line 2: val_loss=nan must be a number"),
    "a text": ('"val_loss": 0.5', '"val_loss": "0.5"', "line 2: val_loss='0.5' must be a number"),
    "another result": (
        '"final_val_accuracy": 0.8',
        '"final_val_accuracy": 0.9',
        "its last row has val_accuracy 0.8, its result",
    ),
    "half a line": ("0.8}\n", "0.", "it has 19 of the 20 epochs"),
}


@pytest.mark.usefixtures("without_figures", "trained")
def test_damaged_entries_are_refused(docs: Path, tmp_path: Path):
    reproduce.reproduce(tmp_path / "work", 2, None, folder=docs)
    entry = entry_of(docs)
    whole = entry.read_text()
    assert len(ledger.read(entry).rows) == 20
    for name, (old, new, message) in DAMAGES.items():
        assert old in whole, name
        entry.write_text(whole.replace(old, new, 1) if name != "half a line" else whole[: -len(old)] + new)
        with pytest.raises(DataError, match=f"^{entry} is damaged: {message}.*; remove it to make it again$") as refused:
            ledger.read(entry)
        assert len(str(refused.value).splitlines()) == 1
    entry.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="it has 19 of the 20 epochs that its result tells of; remove"):
        ledger.read(entry)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"config": {}}\n', b"[]\n", b"3\n", b"\xff", b'{"config": [], "result": {}}\n']
)
def test_what_is_no_entry_is_refused(content: bytes, docs: Path, trained: list[str], tmp_path: Path):
    entry = entry_of(docs)
    entry.parent.mkdir()
    entry.write_bytes(content)
    with pytest.raises(DataError, match=f"^{entry} is damaged: .*; remove it to make it again$") as refused:
        reproduce.reproduce(tmp_path / "work", 2, None, folder=docs)
    assert len(str(refused.value).splitlines()) == 1


def test_a_damaged_folder_does_not_enter_the_ledger(docs: Path, trained: list[str], tmp_path: Path):
    config = settings.load_page("single_head", "imdb")
    folder = tmp_path / "work" / "single_head" / "seed_0"
    fake_train(config, folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    for damaged, message in (
        ("".join(lines[:-1]), f"^{folder} is damaged: it has 19 of the 20 epochs"),
        ('{"epoch": 1', "is damaged"),
    ):
        (folder / "metrics.jsonl").write_text(damaged)
        with pytest.raises(DataError, match=message):
            reproduce.reproduce(tmp_path / "work", 2, None, folder=docs)
    assert trained == ["single_head/seed_1"]
    assert [path.name.partition("-seed_")[2][0] for path in (docs / "runs").iterdir()] == ["1"], "the others lose nothing"


@pytest.mark.usefixtures("trained", "without_figures")
def test_the_pages_are_updated_from_the_same_command(docs: Path, tmp_path: Path):
    readme = docs / "README.md"
    readme.write_text("before\n")
    with pytest.raises(
        DataError, match=r"README.md has no line <!-- table.md --> that a line <!-- end of table.md --> follows"
    ):
        reproduce.reproduce(tmp_path / "work", 2, None, update_docs=True, folder=docs)
    assert sorted(path.name for path in docs.iterdir()) == ["README.md", "blog_curves.csv", "runs"]
    readme.write_text("before\n<!-- table.md -->\nold\n<!-- end of table.md -->\nafter\n")
    for seeds in (2, 3, 3):
        reproduce.reproduce(tmp_path / "work", seeds, None, update_docs=True, folder=docs)
        table = (docs / "table.md").read_text()
        assert f"Seeds 0 to {seeds - 1}." in table
        assert readme.read_text() == f"before\n<!-- table.md -->\n\n{table}\n<!-- end of table.md -->\nafter\n"
        for name in reproduce.PAGES:
            assert (docs / name).read_bytes() == (tmp_path / "work" / name).read_bytes()


def test_the_tables_by_hand():
    """Three curves of two epochs. The blog's two accuracies are the only values outside of their intervals."""
    points = {
        "blog": [(0.50, 0.70), (0.40, 0.95)],
        "one": [(0.51, 0.71), (0.41, 0.81)],
        "two": [(0.49, 0.71), (0.43, 0.82)],
    }
    blog = {"m": curve(*points["blog"])}
    results = [{"final_val_accuracy": a, "best_val_accuracy": a + 0.01, "test_accuracy": 0.8} for a in (0.81, 0.82)]
    runs = {"m": [ledger.Finished(r, curve(*points[k])) for r, k in zip(results, ("one", "two"), strict=True)]}
    assert summary.accuracies(runs, blog).splitlines()[2].split("|")[1:-1] == [
        " m                      ", "       95.00 ", " 81.50 (81.00 to 82.00) ", "      95.00 ", " 82.50 (82.00 to 83.00) ",
        " 80.00 (80.00 to 80.00) ",
    ]  # fmt: skip
    pooled = {"m": statistics.pool(blog["m"], [run.rows for run in runs["m"]])}
    found = {"m": statistics.deviations(pooled["m"])}
    # From two values the interval is m ± 6.314 · s √1.5. Loss 0.40 from 0.41, 0.43: s is 0.01414 and (0.40 − 0.42) / 0.01732 is
    # −1.15. Accuracy 0.95 from 0.81, 0.82: 0.135 / 0.00866 is 15.6. Accuracy 0.70 from 0.71, 0.71: −inf.
    assert summary.ranks(pooled, found).splitlines() == [
        "model,epoch,curves,val_loss_rank,val_loss_deviation,val_accuracy_rank,val_accuracy_deviation",
        "m,1,3,2,0.000,1,-inf",
        "m,2,3,1,-1.155,3,15.588",
    ]
    header, _, model, _, together, _, note = summary.comparison({"m": found["m"], "again": found["m"]}).splitlines()
    cells = [cell.strip() for cell in model.split("|")[1:-1]]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "epochs inside", "of", "loss: blog", "our seeds", "accuracy: blog", "our seeds", "p, mean square", "p, largest",
    ]  # fmt: skip
    assert cells == ["m", "2", "2", "2.0 (2 to 2)", "0", "2.0 (2 to 2)", "0.333", "0.333"]
    assert [cell.strip() for cell in together.split("|")[1:-1]] == [
        "all", "4", "4", "4.0 (4 to 4)", "0", "4.0 (4 to 4)", "0.111", "0.111",
    ]  # fmt: skip
    assert note == (
        "Seeds 0 to 1. The smallest possible p-value is 0.333 for a model and 0.1 for all. "
        "The correlation of a seed's curves between two models is +1.00."
    )
