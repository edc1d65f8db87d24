"""Successive halving: its rungs by hand, and a sweep in which the right trials go on."""

from pathlib import Path

import pytest
import sweeping
import tiny
from sweeping import attempts, names, sweep
from test_sweep_points import make

from experiments.report import curves
from experiments.storage import run_folder
from experiments.sweeps import display, halving, pool, states
from experiments.sweeps.points import seeds
from experiments.training import build


@pytest.mark.parametrize(
    ("trials", "epochs", "eta", "expected"),
    [
        (9, 9, 3, [(9, 1), (3, 3), (1, 9)]),
        (9, 16, 3, [(9, 1), (3, 5), (1, 16)]),
        (8, 16, 3, [(8, 5), (2, 16)]),
        (8, 16, 2, [(8, 2), (4, 4), (2, 8), (1, 16)]),
        (243, 243, 3, [(243, 1), (81, 3), (27, 9), (9, 27), (3, 81), (1, 243)]),
        (100, 3, 3, [(100, 1), (33, 3)]),
    ],
)
def test_rungs(trials: int, epochs: int, eta: int, expected: list[tuple[int, int]]):
    assert halving.rungs(make(seeds(f"0..{trials - 1}"), epochs=epochs), eta) == expected


def test_the_best_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Highest accuracy at the epoch of the rung, not later; then lower loss; then the earlier one. A failed one never."""
    trials = make(seeds("0..4"), epochs=4)
    scores = {0: (0.5, 0.7, 0.9), 1: (0.6, 0.5, 0.5), 2: (0.6, 0.4, 0.4), 3: (0.6, 0.5, 0.1), 4: (0.99, 0.1, 0.99)}
    rows = {
        trial.name: [{"val_accuracy": first, "val_loss": loss}, {"val_accuracy": later, "val_loss": loss}]
        for trial, (first, loss, later) in zip(trials, scores.values(), strict=True)
    }
    monkeypatch.setattr(states, "read_rows", lambda _, trial: rows[trial.name])
    monkeypatch.setattr(states, "is_done", lambda _, trial, epochs: trial is not trials[4])
    rung = halving.Rung(5, 1)
    chosen = [[trials.index(t) for t in halving.best(tmp_path, trials, rung, count)] for count in (1, 2, 3, 5)]
    assert chosen == [[2], [1, 2], [1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.usefixtures("fast_compilation")
def test_a_sweep_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Three trials to epoch 1, and one to epoch 3. The same command again trains nothing; without the flag, all go on."""
    monkeypatch.setattr(build, "build_corpus", lambda config: tiny.corpus())
    monkeypatch.setattr(curves, "draw_curves", lambda *_: None)
    monkeypatch.setattr(pool, "Pool", sweeping.Inline)
    flags = ("--grid=seed=0..2", "--config.epochs=3")
    sweep("run", tmp_path, *flags, "--halving=3")
    out = capsys.readouterr().out.splitlines()
    rungs = ["Rung 1 of 2: 3 trials to epoch 1.", "Rung 2 of 2: 1 trial to epoch 3."]
    assert [line for line in out if line.startswith("Rung")] == rungs
    sums = [line.removeprefix("3 trials: ").split(", ") for line in out if line.startswith("3 trials: ")]
    assert sorted(sums[-1]) == ["1 finished", "2 out (halving)"]
    rows = {name: run_folder.read_rows(tmp_path / "trials" / name) for name in names(tmp_path).values()}
    best = min(rows, key=lambda name: (-rows[name][0]["val_accuracy"], rows[name][0]["val_loss"]))
    assert {name: len(found) for name, found in rows.items()} == dict.fromkeys(rows, 1) | {best: 3}
    before = attempts(tmp_path)
    assert before == {key: [0] for key in rows} | {best: [0, 0]}
    sweep("run", tmp_path, *flags, "--halving=3")
    assert attempts(tmp_path) == before
    sweep("run", tmp_path, *flags)
    assert capsys.readouterr().out.endswith("\n3 trials: 3 finished\n")
    assert attempts(tmp_path) == {key: [0, 0] for key in rows}


class Terminal:
    """A stream that is a terminal, or is none."""

    def __init__(self, is_terminal: bool):
        self.text, self._is_terminal = "", is_terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_shown(is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a terminal one line is rewritten. Elsewhere there is a line for each trial that has ended."""
    trials = make(seeds("0..3"), epochs=4)
    rows = {trial.name: [] for trial in trials}
    done, clock = {trials[0].name}, [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(states, "read_rows", lambda _, trial: rows[trial.name])
    monkeypatch.setattr(states, "is_done", lambda _, trial, epochs: trial.name in done)
    shown = display.Display(tmp_path, stream := Terminal(is_terminal))
    shown.begin(trials, trials[1:], None)
    shown.started(trials[1:3])
    clock[0] = 10.0
    rows[trials[1].name] = [{"val_accuracy": 0.5}] * 2
    shown.tick()
    rows[trials[1].name] = [{"val_accuracy": 0.75}] * 4
    done.add(trials[1].name)
    clock[0] = 40.0
    shown.ended([trials[1]], None, ())
    shown.ended([trials[2]], None, {trials[2].name})
    shown.close()
    if is_terminal:
        lines = [line.strip() for line in stream.text.replace("\n", "\r").split("\r") if line.strip()]
        assert lines == [
            "1 of 4 trials finished, 2 running (epoch 2/4, 0/4)  about 50 seconds left",
            "2 of 4 trials finished, 1 running (epoch 0/4)  about 80 seconds left",
            f"[3/4] {trials[2].name}  seed=2  failed  about 20 seconds left",
            "2 of 4 trials finished, 1 failed  about 20 seconds left",
        ]
    else:
        assert stream.text.splitlines() == [
            f"[2/4] {trials[1].name}  seed=1  val_accuracy 0.7500  about 80 seconds left",
            f"[3/4] {trials[2].name}  seed=2  failed  about 20 seconds left",
        ]
