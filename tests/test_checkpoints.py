"""Checkpoints: every damage of every file is found, moved aside under a name that says why, and the one before is used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

import experiments
from experiments.errors import DataError, UsageError
from experiments.storage import checkpoints, run_folder

ARRAYS = {
    "params": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": np.ones(5, np.float32)}},
    "count": [np.int32(7)],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints of kind "last" and one of kind "best". Not to be written to: copy it."""
    workdir = tmp_path_factory.mktemp("saved")
    for kind, step in (("last", 5), ("last", 9), ("best", 5)):
        checkpoints.save(workdir, kind, step, ARRAYS, {"rows": [{"val_loss": 0.1 + 0.2}], "step": step})
    return workdir


def damage(how: str, file: Path) -> None:
    content = file.read_bytes()
    if how == "removed":
        file.unlink()
        return
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    damaged = {
        "cut": content[:-2],
        "empty": b"",
        "zeroed": bytes(len(content)),
        "flipped": flipped,
        "list": b"[1]",
        "junk": b"\xff\0{",
    }
    file.write_bytes(damaged[how])


def newest_step(workdir: Path, aside: bool) -> int | None:
    found = checkpoints.newest(workdir, "last", aside)
    return found and found.step


HOW = ("removed", "cut", "empty", "zeroed", "flipped", "list", "junk")


def test_what_is_read_is_what_was_saved(saved: Path):
    step, arrays, meta = checkpoints.read_newest(saved, "last")
    assert (step, meta) == (9, {"rows": [{"val_loss": 0.1 + 0.2}], "step": 9})
    np.testing.assert_array_equal(arrays["params"]["a"], ARRAYS["params"]["a"])
    assert arrays["params"]["b"]["c"].dtype == np.float32
    assert (arrays["count"][0].dtype, int(arrays["count"][0])) == (np.int32, 7)
    assert not list(saved.rglob("*.part"))
    assert not list(saved.rglob("*.old"))


@pytest.mark.parametrize("how", HOW)
def test_every_damage_of_every_file_is_found(how: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints" / "last" / "9"
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len(names) >= 8
    for name in names:
        content = (folder / name).read_bytes()
        damage(how, folder / name)
        if (folder / name).exists() and (folder / name).read_bytes() == content:  # an empty file cannot be emptied
            continue
        assert newest_step(tmp_path, aside=False) == 5, name
        warning = capsys.readouterr().err
        assert warning.startswith("warning: checkpoint last/9 is damaged (")
        assert warning.endswith("; the one of step 5 is used\n")
        assert name.name in warning or name.name == "manifest.json"  # which may accuse another file
        assert warning.count("\n") == 1
        (folder / name).write_bytes(content)
    assert newest_step(tmp_path, aside=False) == 9, "whole again"


def test_what_is_damaged_is_moved_aside_and_none_left_is_no_start_at_zero(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    root = tmp_path / "checkpoints"
    damage("flipped", root / "last" / "9" / "meta.json")
    assert newest_step(tmp_path, aside=True) == 5
    assert (root / "bad-last-9-meta.json-has-changed-since-it-was-written" / "manifest.json").exists()
    assert checkpoints.steps_of(tmp_path, "last") == [5]
    damage("removed", root / "last" / "5" / "meta.json")
    for _ in range(2):  # the second time there is nothing left to move
        with pytest.raises(DataError, match=r"every checkpoint of kind last is damaged; remove the folder"):
            checkpoints.newest(tmp_path, "last", aside=True)
    assert capsys.readouterr().err.count("\n") == 2
    assert checkpoints.read_newest(tmp_path, "best").step == 5, "apart from the last"


def test_a_save_that_fails_leaves_the_earlier_ones(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    before = tiny.tree(tmp_path)

    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_json", full)
    for step in (9, 12):
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(tmp_path, "last", step, ARRAYS, {})
    assert tiny.tree(tmp_path) == before


def test_a_process_that_was_killed_while_it_replaced_a_checkpoint(saved: Path, tmp_path: Path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints" / "last"
    shutil.rmtree(folder / "5")
    (folder / "9").rename(folder / "9.old")  # the new one had no name yet
    shutil.copytree(folder / "9.old", folder / "9.part")
    assert newest_step(tmp_path, aside=True) == 9
    checkpoints.keep(tmp_path, "last", {9})
    assert [path.name for path in folder.iterdir()] == ["9"]


def test_a_run_with_a_damaged_file_is_not_loaded(finished_run: Path, tmp_path: Path):
    """The files beside the checkpoints."""
    for how in HOW:
        for name in ("config.json", "vocabulary.txt"):
            workdir = tmp_path / how / name
            shutil.copytree(finished_run, workdir)
            damage(how, workdir / name)
            missing = how == "removed" and name == "config.json"
            expected = UsageError if missing else DataError
            with pytest.raises(expected, match="holds no run" if missing else f"is damaged: .*{name}") as refused:
                experiments.load(workdir)
            assert len(str(refused.value).splitlines()) == 1


def test_a_checkpoint_of_another_config_is_refused(finished_run: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    content = json.loads((workdir / "config.json").read_text())
    content["seed"], content["model"]["feedforward_dim"] = 5, 8
    (workdir / "config.json").write_text(json.dumps(content))
    differing = "seed is 0 there and 5 here, model.feedforward_dim is 7 there and 8 here"
    message = f"holds a checkpoint of another config: {differing}; choose another folder$"
    with pytest.raises(UsageError, match=message):
        run_folder.load(workdir)
    with pytest.raises(UsageError, match=r"^--checkpoint=first must be one of last, best$"):
        run_folder.load(finished_run, "first")
