"""Sweeps that run: each trial once, whatever is killed, edited or fails, with the bits of a run by `train`."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import sweeping
import tiny
from conftest import once
from sweeping import attempts, names, sweep
from test_resume import outcome

from experiments import settings
from experiments.errors import DataError
from experiments.storage import lock
from experiments.sweeps import pool, watch, worker
from experiments.training import together

HEADS = "--grid=model.num_heads,model.key_dim=1:6,2:3"
SEEDS = "--grid=seed=0..1"
MORE = ("--config.epochs=24", "--config.steps_per_call=1")  # long enough to be stopped


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch):
    sweeping.use_forked_workers(monkeypatch)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of two shapes and two seeds. Not to be written to."""

    def run(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            sweeping.use_forked_workers(monkeypatch)
            sweep("run", folder, HEADS, SEEDS)

    return once(tmp_path_factory, "sweep", run)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copied")


def test_trials_are_the_runs_that_train_makes(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two of them share a process."""
    flags = ("--config.model.num_heads=2", "--config.model.key_dim=3")
    for seed in (0, 1):
        tiny.train(monkeypatch, tmp_path / str(seed), *flags, f"--config.seed={seed}")
        found = finished / "trials" / names(finished)[f"model.num_heads=2 model.key_dim=3 seed={seed}"]
        assert outcome(found) == outcome(tmp_path / str(seed))
    assert outcome(tmp_path / "0") != outcome(tmp_path / "1")
    assert len(list((finished / "logs").iterdir())) == 2


def test_a_finished_sweep_trains_nothing(copied: Path, capsys: pytest.CaptureFixture):
    before = tiny.tree(copied / "trials")
    sweep("run", copied, SEEDS, HEADS.replace("1:6,2:3", "2:3,1:6"))
    assert tiny.tree(copied / "trials") == before
    out = capsys.readouterr().out
    assert out.startswith("Nothing to train: 4 of 4 trials are finished.\n")
    assert out.endswith("\n4 trials: 4 finished\n")


def test_trials_of_a_ledger_count_as_done(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """A sweep fills one; another reads it, trains the two points more that it has, and adds those to its own."""
    first, second, folder = tmp_path / "first", tmp_path / "second", tmp_path / "sweep"
    sweep("run", copied, HEADS, SEEDS, f"--ledger={first}")
    assert len(list(first.iterdir())) == 4
    flags = (HEADS, "--grid=seed=0..2", f"--ledger={second}", f"--ledger={first}")
    capsys.readouterr()
    sweep("plan", folder, *flags)
    planned = capsys.readouterr().out
    assert planned.count("in a ledger |") == 4
    assert "\n4 are finished; 2 trials left: " in planned
    assert not second.exists()
    sweep("run", folder, *flags)
    out = capsys.readouterr().out
    assert "4 trials are taken from a ledger.\n2 of 6 trials to train, on " in out
    assert "\n6 trials: 6 finished\n" in out
    assert len(attempts(folder)) == 2
    for point, name in names(copied).items():
        assert names(folder)[point] == name
        for file in ("metrics.jsonl", "result.json", "config.json"):
            assert (folder / "trials" / name / file).read_bytes() == (copied / "trials" / name / file).read_bytes()
    added = sorted(entry.name for entry in second.iterdir())
    assert [name.rpartition("-")[0] for name in added] == ["transformer-seed_2"] * 2
    sweep("run", folder, *flags)
    assert "Nothing to train: 6 of 6 trials are finished." in capsys.readouterr().out
    assert sorted(entry.name for entry in second.iterdir()) == added


def test_a_ledger_that_cannot_be_used(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """One line, and no run folder of the trial: the data was another version, or half of the entry is lost."""
    ledger, folder = tmp_path / "ledger", tmp_path / "sweep"
    sweep("run", copied, HEADS, SEEDS, f"--ledger={ledger}")
    entry = next(ledger.glob("*-seed_1-*"))
    whole = entry.read_text()
    said = {
        whole.replace('"corpus_sha256": "', '"corpus_sha256": "0'): f"--ledger={entry} was trained on another version of the "
        "corpus verdicts: choose another ledger\n",
        whole[: len(whole) // 2]: f"{entry} is damaged: ",
    }
    for content, message in said.items():
        entry.write_text(content)
        capsys.readouterr()
        sweep("run", folder, HEADS, "--grid=seed=1", f"--ledger={ledger}", code=4)
        err = capsys.readouterr().err
        assert err.startswith(f"error: {message}")
        assert len(err.splitlines()) == 1
        assert len(list((folder / "trials").glob("*"))) < 2
    sweep("run", folder, SEEDS, "--ledger=", code=2)
    assert capsys.readouterr().err == "error: --ledger is empty: it must be a path\n"
    sweep("run", folder, SEEDS, f"--ledger={ledger}", "--ledger=nowhere", code=2)
    assert capsys.readouterr().err == "error: --ledger=nowhere must be a folder: all but the first are only read\n"


def test_an_edited_sweep_trains_what_is_new(copied: Path, capsys: pytest.CaptureFixture):
    """One point is new, two have gone, and then all are there again; free fields are no edit."""
    earlier = attempts(copied)
    assert list(map(len, earlier.values())) == [1] * 4
    sweep("run", copied, "--grid=model.num_heads,model.key_dim=2:3", "--grid=seed=0..2", "--config.devices=1")
    assert "1 of 3 trials to train, on 1 process with all " in capsys.readouterr().out
    edited = attempts(copied)
    assert edited == earlier | {names(copied)["model.num_heads=2 model.key_dim=3 seed=2"]: [0]}
    sweep("status", copied)
    assert "2 other trials are in " in capsys.readouterr().out
    sweep("run", copied, HEADS, "--grid=seed=0..2")
    assert "1 of 6 trials to train, on " in capsys.readouterr().out
    assert {name: len(codes) for name, codes in attempts(copied).items()} == dict.fromkeys(names(copied).values(), 1)


def test_another_base_needs_extend(copied: Path, capsys: pytest.CaptureFixture):
    before = tiny.tree(copied)
    for action in ("plan", "run"):
        sweep(action, copied, HEADS, SEEDS, "--config.learning_rate=0.01", code=2)
        said = f"error: --sweepdir={copied} holds a sweep of another config: learning_rate is 0.003 there and 0.01 here"
        assert capsys.readouterr().err == said + "; --extend keeps its trials and adds these\n"
    assert {**tiny.tree(copied), "LOCK": b""} == {**before, "LOCK": b""}
    sweep("run", copied, "--grid=model.num_heads,model.key_dim=2:3", "--grid=seed=1", "--config.learning_rate=0.01", "--extend")
    assert "learning_rate" in capsys.readouterr().out.splitlines()[3]
    assert next(iter(names(copied))) == "model.num_heads=1 model.key_dim=6 seed=0 learning_rate=0.003"
    assert list(names(copied))[-1] == "model.num_heads=2 model.key_dim=3 seed=1"
    assert sum(map(len, attempts(copied).values())) == 5
    sweep("plan", copied, HEADS, SEEDS, "--config.learning_rate=0.01", "--extend")
    assert "5 are finished; 3 trials left" in capsys.readouterr().out


def test_another_corpus_needs_extend(copied: Path, capsys: pytest.CaptureFixture):
    content = json.loads((copied / "sweep.json").read_text())
    for trial in content["trials"]:
        trial["corpus_sha256"] = "0" * 64
    (copied / "sweep.json").write_text(json.dumps(content))
    sweep("run", copied, HEADS, SEEDS, code=2)
    assert "another config: the corpus verdicts is another version; --extend keeps" in capsys.readouterr().err


def until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_sweep_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """SIGKILL while its trials are trained. Their process then saves them and ends; the same command finishes them."""
    folder, grids = tmp_path / "sweep", ("--grid=seed=0..1", *MORE)
    with sweeping.started(folder, *grids) as process:
        until(lambda: [path for path in (folder / "trials").glob("*/metrics.jsonl") if path.read_text().count("\n") > 2])
        sweep("status", folder)  # of a sweep that runs
        assert "2 trials: 2 running" in capsys.readouterr().out
        sweep("run", folder, *grids, code=5)
        assert f"error: --sweepdir={folder} is in use by process {process.pid} on " in capsys.readouterr().err
        process.kill()
        process.join()
    until(lambda: not lock.is_held(folder))  # a forked worker has the lock of the sweep too; one that is spawned has not
    sweep("run", folder, *grids)
    out = capsys.readouterr().out
    assert out.startswith("2 trials to train, on ")
    for codes in attempts(folder).values():
        assert codes == [75, 0]
    tiny.train(monkeypatch, tmp_path / "alone", "--config.seed=1", *MORE)
    assert outcome(folder / "trials" / names(folder)["seed=1"]) == outcome(tmp_path / "alone")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_sweep_that_is_stopped_saves(number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    tick, sent = watch.Watch.tick, []

    def signalled(self: watch.Watch) -> None:
        if not sent and [path for path in tmp_path.glob("trials/*/metrics.jsonl") if path.read_text()]:
            sent.append(os.kill(os.getpid(), number))
        tick(self)

    monkeypatch.setattr(watch.Watch, "tick", signalled)
    monkeypatch.setattr(pool, "_TICK", 0.05)
    sweep("run", tmp_path, "--grid=seed=0..2", *MORE, code=code)
    name, then = signal.Signals(number).name, "0 of 3 trials are finished, the others are saved, and the same command continues"
    assert capsys.readouterr().err == f"error: stopped by {name}: {then}\n"
    assert list(attempts(tmp_path).values()) == [[75]] * 3
    assert not (tmp_path / "failures.json").exists()
    assert not lock.is_held(tmp_path / "trials" / names(tmp_path)["seed=0"])
    sweep("status", tmp_path)
    assert "3 trials: 3 stopped" in capsys.readouterr().out


def test_trials_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """One process is killed, one is told that there is no data, one has a bug; the fourth is trained. `retry` mends them."""
    monkeypatch.setattr(pool, "ON_CPU", 1)
    folder = tmp_path / "sweep"
    failing = (sweeping.KILLED, sweeping.REFUSED, sweeping.BROKEN)
    grid = f"--grid=seed={','.join(map(str, failing))},7"
    sweep("run", folder, grid, code=1)
    out, err = capsys.readouterr()
    assert err == f"error: 3 of 4 trials have failed; sweep retry --sweepdir={folder} runs them again\n"
    killed, refused, broken, _ = (names(folder)[f"seed={seed}"] for seed in (*failing, 7))
    table = out[out.index("failed with exit code") :].splitlines()
    assert table == [
        f"failed with exit code -9: {killed} (seed=1001)",
        "    its process was killed by SIGKILL: out of memory, or somebody has killed it",
        "    allocating",
        f"    see {folder}/logs/{killed}.log",
        f"failed with exit code 4: {refused} (seed=1002)",
        "    the data is not there",
        f"    see {folder}/logs/{refused}.log",
        f"failed with exit code 1: {broken} (seed=1003)",
        *table[8:11],
        "    ZeroDivisionError: a bug",
        f"    see {folder}/logs/{broken}.log",
    ]
    assert "4 trials: 3 failed, 1 finished" in out
    before = attempts(folder)
    assert list(before.values()) == [[0]]
    sweep("run", folder, grid, code=1)  # they have failed, and are not trained again
    assert "Nothing to train: 1 of 4 trials are finished. 3 have failed before: sweep retry" in capsys.readouterr().out
    (tmp_path / "mend").touch()
    monkeypatch.setattr(pool, "ON_CPU", 4)
    sweep("retry", folder)
    assert "3 trials to train, on " in capsys.readouterr().out
    assert sorted(attempts(folder)) == sorted(names(folder).values())
    assert list(attempts(folder).values()) == [[0]] * 4
    sweep("retry", folder)
    assert capsys.readouterr().out == f"No trial in {folder} has failed.\n"


def test_fail_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Two processes at once. The one whose trial fails stops the other, which saves, and the third is not started."""
    monkeypatch.setattr(pool, "ON_CPU", 1)
    monkeypatch.setattr(pool, "_TICK", 0.05)
    grid = f"--grid=seed=0,{sweeping.REFUSED},1"
    sweep("run", tmp_path, grid, *MORE, "--jobs=2", "--fail_fast", code=1)
    out, err = capsys.readouterr()
    assert err.startswith("error: 1 of 3 trials have failed and --fail_fast has stopped the others; sweep retry ")
    assert "on 2 processes, " in out
    assert not (tmp_path / "trials" / names(tmp_path)["seed=1"]).exists()
    assert not lock.is_held(tmp_path / "trials" / names(tmp_path)["seed=0"])


def test_a_run_that_is_still_being_saved_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    """By a process of the same sweep, after that of the former one was killed; but not for ever."""
    tried = []

    def busy(members: object, label: str, progress: object) -> list:
        tried.append(None)
        if len(tried) < 3:
            raise lock.Busy("in use")
        return [{}]

    monkeypatch.setattr(worker.time, "sleep", lambda _: None)
    monkeypatch.setattr(together, "train", busy)
    member = together.Member(settings.load_page("transformer", "verdicts"), Path("nowhere"))
    assert worker.run_group([member], ["a"], "label") == [{}]
    tried.clear()
    monkeypatch.setattr(worker, "_BUSY_SECONDS", -1.0)
    [error] = worker.run_group([member], ["a"], "label")
    assert isinstance(error, lock.Busy)
    assert len(tried) == 1


def test_a_folder_that_cannot_be_used_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch):
    """The runs of a group are then trained one by one."""

    def refuse(members: list, label: str, progress: object) -> list:
        if any(member.workdir == Path("bad") for member in members):
            raise DataError("damaged")
        return [{"of": str(member.workdir)} for member in members]

    monkeypatch.setattr(together, "train", refuse)
    config = settings.load_page("transformer", "verdicts")
    found = worker.run_group([together.Member(config, Path(name)) for name in ("a", "bad", "b")], "abc", "label")
    assert [str(outcome) for outcome in found] == ["{'of': 'a'}", "damaged", "{'of': 'b'}"]
