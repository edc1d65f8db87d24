"""A run that is stopped and started again has the bits of the run that was never stopped."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from experiments.machine import stopping
from experiments.storage import checkpoints, lock, provenance, run_folder
from experiments.storage.saving import Saver
from experiments.training import fit
from experiments.training.programs import Programs

pytestmark = pytest.mark.usefixtures("fast_compilation")
STEP = "--config.steps_per_call=1"


def outcome(workdir: Path) -> tuple:
    """All that a run leaves and that is not a time: rows, result, and the arrays of both kinds of checkpoints as bytes."""
    rows = [{k: v for k, v in row.items() if k not in tiny.TIMES} for row in run_folder.read_rows(workdir)]
    result = {k: v for k, v in run_folder.read_result(workdir).items() if k not in tiny.TIMES}
    saved = [checkpoints.read_newest(workdir, kind) for kind in checkpoints.KINDS]
    return rows, result, [(found.step, as_bytes(found.arrays)) for found in saved]


def as_bytes(tree: object) -> object:
    if isinstance(tree, dict):
        return {name: as_bytes(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [as_bytes(value) for value in tree]
    return np.asarray(tree).dtype.str, np.asarray(tree).tobytes()


def attempts(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "provenance.jsonl").read_text().splitlines()]


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, when: Callable[[], bool], number: int) -> None:
    """Sends a signal to this process in each call of a method for which `when` holds."""
    method = getattr(owner, name)

    def wrapped(*arguments: object) -> object:
        if when():
            signal.raise_signal(number)
        return method(*arguments)

    monkeypatch.setattr(owner, name, wrapped)


def test_a_run_stopped_after_every_step_is_the_run_that_was_not(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """SIGTERM in each compiled call: two epochs of five steps, so ten attempts that stop, and one that ends."""
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt(patch, Programs, "_trained", lambda: True, signal.SIGTERM)
        for step in range(1, 11):
            tiny.train(monkeypatch, workdir, STEP, code=75)
            out, err = capsys.readouterr()
            assert err == f"error: stopped by SIGTERM after step {step}, which is saved: the same command continues\n"
            assert ("Continues after step" in out) == (step > 1)
    tiny.train(monkeypatch, workdir, STEP)
    assert "Continues after step 10, in epoch 2 of 2." in capsys.readouterr().out
    assert outcome(workdir) == outcome(finished_run)
    records = attempts(workdir)
    assert [record["exit_code"] for record in records] == [75] * 10 + [0]
    assert [(record["first_step"], record["last_step"]) for record in records] == [*((i, i + 1) for i in range(10)), (10, 10)]
    assert {"argv", "host", "git_commit", "versions", "device", "flags", "corpus_sha256", "started", "ended"} < records[
        0
    ].keys()
    assert not (workdir / "attempt.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the former handler"


@pytest.mark.parametrize(
    ("owner", "name", "number", "code"),
    [
        (Programs, "_compiled_train", signal.SIGUSR1, 75),  # while the train step is compiled
        (Programs, "_evaluated", signal.SIGINT, 130),  # while an evaluation runs or is compiled
        (Saver, "save", signal.SIGTERM, 75),
    ],
    ids=["compiling", "evaluating", "saving"],
)
def test_a_signal_at_another_moment(
    owner: type, name: str, number: int, code: int, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir, sent = tmp_path / "run", []

    def first() -> bool:
        sent.append(None)
        return len(sent) == 1

    def method(*arguments: object) -> object:
        if first():
            os.kill(os.getpid(), number)  # to the main thread, from the one that computes
        return original(*arguments)

    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, method)
    tiny.train(monkeypatch, workdir, STEP, code=code)
    assert attempts(workdir)[-1]["exit_code"] == code
    tiny.train(monkeypatch, workdir, STEP)
    assert outcome(workdir) == outcome(finished_run)


def test_a_finished_run_is_told_and_more_epochs_go_on_from_its_end(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    longer, workdir = tmp_path / "longer", tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    before = tiny.tree(workdir) | {lock.LOCK: b""}
    tiny.train(monkeypatch, workdir)
    assert capsys.readouterr().out.startswith(f"The run in {workdir} is finished: there is nothing to train.\n")
    assert tiny.tree(workdir) | {lock.LOCK: b""} == before
    tiny.train(monkeypatch, workdir, "--config.epochs=3")
    assert "Continues after step 10, in epoch 3 of 3." in capsys.readouterr().out
    tiny.train(monkeypatch, longer, "--config.epochs=3")
    assert outcome(workdir) == outcome(longer)
    assert run_folder.read_config(workdir).epochs == 3
    tiny.train(monkeypatch, workdir, "--config.epochs=3", "--config.schedule=cosine", code=2)
    assert "schedule is 'constant' there and 'cosine' here" in capsys.readouterr().err
    tiny.train(monkeypatch, workdir, "--config.epochs=2", code=2)
    assert "config.epochs=2 must be at least 3" in capsys.readouterr().err


def test_metrics_and_tensorboard_are_cut_back(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """To the rows of the restored checkpoint, whatever a killed process or a power failure has left."""
    workdir = tmp_path / "run"
    interrupt(monkeypatch, Programs, "_trained", lambda: True, signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "_CALL_SECONDS", 1000.0)  # a whole epoch in the second call
        tiny.train(monkeypatch, workdir, "--config.steps_per_call=5", code=75)
    lines = (finished_run / "metrics.jsonl").read_bytes()
    (workdir / "metrics.jsonl").write_bytes(lines + lines + b'{"epoch": 5, "tr' + bytes(40))
    (workdir / "tensorboard").mkdir(exist_ok=True)
    (workdir / "tensorboard" / "events.out.old").write_bytes(b"old")
    monkeypatch.undo()
    tiny.train(monkeypatch, workdir, "--config.steps_per_call=5")
    assert outcome(workdir) == outcome(finished_run)
    events = list((workdir / "tensorboard").iterdir())
    assert len(events) == 1
    assert events[0].read_bytes().count(b"val_accuracy") == tiny.EPOCHS


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    workdir, calls = tmp_path / "run", []
    interrupt(monkeypatch, Programs, "_trained", lambda: calls.append(None) or len(calls) == 8, signal.SIGTERM)
    tiny.train(monkeypatch, workdir, STEP, "--config.checkpoint_every=3", code=75)
    monkeypatch.undo()
    assert checkpoints.steps_of(workdir, "last") == [6, 8]
    (workdir / "checkpoints" / "last" / "8" / "meta.json").write_bytes(b"{}")
    capsys.readouterr()
    tiny.train(monkeypatch, workdir, STEP)
    out, err = capsys.readouterr()
    assert "Continues after step 6, in epoch 2 of 2." in out
    moved = "checkpoints/bad-last-8-meta.json-has-changed-since-it-was-written"
    assert f"(meta.json has changed since it was written), moved to {moved}; the one of step 6 is used\n" in err
    assert outcome(workdir) == outcome(finished_run)


def test_a_killed_attempt_gets_its_line_from_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "attempt.json").write_text('{"pid": 7, "first_step": 0, "last_step": 4}')
    (workdir / "provenance.jsonl").write_text('{"pid": 6, "exit_code": 1}\n{"pi')
    tiny.train(monkeypatch, workdir)
    assert [(record["pid"], record["exit_code"]) for record in attempts(workdir)] == [(6, 1), (7, None), (os.getpid(), 0)]
    assert attempts(workdir)[1]["reason"].startswith("it left no record: its process was killed")


def test_an_attempt_is_not_written_twice(finished_run: Path, tmp_path: Path):
    """Its process was killed between writing its line and removing its record; a damaged record is a line too."""
    shutil.copytree(finished_run, tmp_path / "run")
    [line] = attempts(tmp_path / "run")
    (tmp_path / "run" / "attempt.json").write_text(json.dumps({k: line[k] for k in ("started", "pid", "host", "first_step")}))
    with provenance.attempt(tmp_path / "run", 7):
        pass
    (tmp_path / "run" / "attempt.json").write_text('{"star')
    with provenance.attempt(tmp_path / "run", 8):
        pass
    records = attempts(tmp_path / "run")
    assert [record.get("first_step") for record in records] == [0, 7, None, 8]
    assert "attempt.json" in records[2]["damaged"]


def test_a_run_whose_best_checkpoint_is_gone_goes_on(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Again and again, until a better epoch has replaced it; its metrics on the test split are then not known."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    (workdir / "result.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "best")
    for _ in range(2):
        tiny.train(monkeypatch, workdir)
        out, err = capsys.readouterr()
        assert "Training has ended after step 10; the test split is evaluated." in out
        assert "(manifest.json is missing); a better epoch will replace it" in err
        assert run_folder.read_result(workdir)["best_test_loss"] is None
        assert len(list((workdir / "tensorboard").iterdir())) == 1, "written anew, although no row is new"
        (workdir / "result.json").unlink()


def test_a_result_that_is_damaged_is_made_again_and_one_without_checkpoints_is_kept(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    (workdir / "result.json").write_text("{")
    tiny.train(monkeypatch, workdir)
    assert "is damaged: result.json is not JSON: " in capsys.readouterr().err
    assert outcome(workdir) == outcome(finished_run)
    shutil.rmtree(workdir / "checkpoints")
    before = (workdir / "result.json").read_bytes()
    tiny.train(monkeypatch, workdir, "--config.epochs=3", code=4)
    assert "holds a finished run without its checkpoints" in capsys.readouterr().err
    assert (workdir / "result.json").read_bytes() == before


def test_a_folder_that_is_removed_while_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    workdir, call = tmp_path / "run", Programs._trained

    def remove(*arguments: object) -> object:
        shutil.rmtree(workdir)
        return call(*arguments)

    monkeypatch.setattr(Programs, "_trained", remove)
    tiny.train(monkeypatch, workdir, code=1)
    said = f"error: --workdir={workdir} or its file LOCK was removed while the run was writing there\n"
    assert capsys.readouterr().err == said
    assert not workdir.exists()


def test_a_second_process_is_told_who_writes(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    with lock.hold(workdir):
        tiny.train(monkeypatch, workdir, code=5)
        with pytest.raises(lock.Busy, match=rf"is in use by process {os.getpid()} on .* since 20..-..-..T..:..:..Z$"):
            lock.refuse_if_busy(workdir)
    lock.refuse_if_busy(workdir)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_disk_that_is_full_for_a_while_loses_nothing(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Two saves fail, and training goes on; three in a row end the run, which continues later."""
    save, failing = checkpoints.save, []

    def full(workdir: Path, kind: str, step: int, *rest: object) -> None:
        if step in failing:
            raise OSError(28, "No space left on device")
        save(workdir, kind, step, *rest)

    monkeypatch.setattr(checkpoints, "save", full)
    failing[:] = [2, 3]
    flags = STEP, "--config.checkpoint_every=1"
    tiny.train(monkeypatch, tmp_path / "run", *flags)
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert warnings[0].startswith("warning: the checkpoint of step 2 is not saved, training goes on: ")
    failing[:] = [4, 5, 6]
    tiny.train(monkeypatch, tmp_path / "other", *flags, code=1)
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: no checkpoint can be saved: ")
    assert checkpoints.steps_of(tmp_path / "other", "last") == [2, 3]
    failing.clear()
    tiny.train(monkeypatch, tmp_path / "other", *flags)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "other") == outcome(finished_run)


def test_patience_ends_a_run_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a learning rate that changes nothing, the first epoch stays the best one."""
    workdir = tmp_path / "run"
    tiny.train(monkeypatch, workdir, "--config.epochs=6", "--config.patience=2", "--config.learning_rate=1e-12")
    result = run_folder.read_result(workdir)
    assert (result["best_epoch"], result["epochs"], len(run_folder.read_rows(workdir))) == (1, 3, 3)
    assert run_folder.load(workdir, "best").params.keys() == run_folder.load(workdir).params.keys()


def test_a_schedule_that_depends_on_the_epochs_keeps_them(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    content = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(content | {"schedule": "cosine"}))
    tiny.train(monkeypatch, workdir, "--config.schedule=cosine", "--config.epochs=3", code=2)
    said = f"config.epochs=3 must be 2: --workdir={workdir} holds a run, and the learning rates of schedule=cosine depend on "
    assert capsys.readouterr().err == f"error: {said}the epochs\n"


def test_no_memory_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def exhausted(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nmore")

    monkeypatch.setattr(Programs, "_trained", exhausted)
    tiny.train(monkeypatch, tmp_path / "run", code=1)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: out of memory at config.batch_size={tiny.BATCH_SIZE}: a smaller one needs less")
    assert line.endswith("(RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.)")
    assert attempts(tmp_path / "run")[-1]["exit_code"] == 1


def test_a_run_starts_from_another_one(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """What fits by name and shape is taken, and the rest is told; with a learning rate that changes nothing, it stays."""
    still = "--config.learning_rate=1e-12", "--config.epochs=1"
    other = run_folder.load(finished_run).params
    for name, flags, said in (
        ("same", (), "all 19 parameter arrays."),
        ("wider", ("--config.model.feedforward_dim=8",), "of 19 parameter arrays; new: transformer_0/"),
    ):
        tiny.train(monkeypatch, tmp_path / name, f"--config.init_from={finished_run}", *still, *flags)
        assert f"Starts from {finished_run}: " in (out := capsys.readouterr().out)
        assert said in out
        params = run_folder.load(tmp_path / name).params
        np.testing.assert_allclose(params["logits"]["kernel"], other["logits"]["kernel"], atol=1e-9)
    shapes = {leaf.shape for leaf in jax.tree.leaves(params["transformer_0"])}
    assert {(5, 8), (8, 5), (8,)} < shapes
    tiny.train(monkeypatch, tmp_path / "none", f"--config.init_from={tmp_path}", *still, code=2)
    assert capsys.readouterr().err == f"error: config.init_from={tmp_path} holds no run: config.json is missing\n"


def test_exit_codes():
    codes = {number: stopping.exit_code(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    assert codes == {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGUSR1: 75}
