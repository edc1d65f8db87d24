"""Several runs in one program: each is what it would be alone, and none stops another."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny
from test_resume import attempts, outcome

from experiments import ranges, settings
from experiments.errors import UsageError
from experiments.storage import checkpoints, lock, run_folder
from experiments.training import build, steps, together
from experiments.training.programs import Programs
from experiments.training.progress import Progress
from experiments.training.several_progress import SeveralProgress
from experiments.training.together import Member

pytestmark = pytest.mark.usefixtures("fast_compilation")
SEEDS = "--config.seeds=0,3..4"


def tiny_config(**changes: Any) -> settings.Config:
    config = settings.load_page("transformer", "verdicts")
    with config.unlocked():
        config.update_from_flattened_dict(
            {"epochs": tiny.EPOCHS, "batch_size": tiny.BATCH_SIZE, "model.embed_dim": 5, "model.key_dim": 3}
            | {"model.feedforward_dim": 7}
            | {name.replace("__", "."): value for name, value in changes.items()}
        )
    return config


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of three seeds, each trained by its own command."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for seed in (0, 3, 4):
            tiny.train(monkeypatch, folder / f"seed_{seed}", f"--config.seed={seed}")
    return folder


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", (3,)), ("0..2", (0, 1, 2)), ("4..4", (4,)), ("5, 0..1", (5, 0, 1)), ("07", (7,))]
)
def test_ranges_have_both_ends(text: str, numbers: tuple[int, ...]):
    assert ranges.integers(text) == numbers


@pytest.mark.parametrize("text", ["", "1..", "..2", "2..1", "1...3", "-1", "1,1", "0..2,1", "0..10000", "1;2", "a", "1.5"])
def test_no_ranges(text: str):
    with pytest.raises(ValueError, match="ranges with both ends such as"):
        ranges.integers(text)


def test_each_seed_is_the_run_that_it_is_alone(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Bit for bit, on a CPU, where the runs are mapped."""
    tiny.train(monkeypatch, tmp_path, SEEDS)
    for seed in (0, 3, 4):
        assert outcome(tmp_path / f"seed_{seed}") == outcome(alone / f"seed_{seed}")
        assert settings.flatten(run_folder.read_config(tmp_path / f"seed_{seed}"))["seeds"] is None
    assert outcome(alone / "seed_0") != outcome(alone / "seed_3")
    out = capsys.readouterr().out.splitlines()
    accuracies = [run_folder.read_result(alone / f"seed_{seed}")["test_accuracy"] for seed in (0, 3, 4)]
    table = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in out if line.startswith("| ")}
    assert table["mean"] == f"{np.mean(accuracies):.4f}"
    assert table["sd"] == f"{np.std(accuracies, ddof=1):.4f}"
    assert [line.split()[:4] for line in out if line.startswith("Epoch")] == [["Epoch", f"{e}/2", "3", "runs"] for e in (1, 2)]


def test_runs_in_parallel_are_nearly_those_alone(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`vmap`, two runs a call, so that the last call has a copy that fills it."""
    tiny.train(monkeypatch, tmp_path, SEEDS, "--config.runs_per_call=2")
    for seed in (0, 3, 4):
        for row, expected in zip(*(run_folder.read_rows(folder / f"seed_{seed}") for folder in (tmp_path, alone)), strict=True):
            for column in ("train_loss", "val_loss"):
                assert row[column] == pytest.approx(expected[column], rel=1e-5)
        assert run_folder.read_result(tmp_path / f"seed_{seed}")["epochs"] == 2


def test_the_first_step_in_parallel(monkeypatch: pytest.MonkeyPatch):
    """Loss and gradients of each run within 1e-6 of the largest entry of the gradient alone."""
    config, corpus = tiny_config(), tiny.corpus()
    plan = build.build_plan(config, build.build_model(config, corpus.tokenizer), len(corpus.train.labels))
    states, batches = [], []
    for seed, rate in ((0, 0.1), (3, 0.4), (4, 0.2)):
        scalars = build.scalars_of(config)._replace(dropout_rate=rate, label_smoothing=rate / 2)
        states.append(plan.replicate(steps.initial_state(plan, jax.random.key(seed), scalars)))
        order = np.asarray(steps.epoch_order(plan, states[-1].rng, 0, len(corpus.train.labels)))
        batches.append(steps.at(plan.batches(corpus.train.tokens, corpus.train.labels, order), 0))
    gradient = jax.jit(lambda state, batch: steps.mean_gradient(plan, state, batch))
    stacked = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *zip(states, batches, strict=True))
    found = jax.device_get(jax.jit(jax.vmap(gradient))(*stacked))
    for index, (state, batch) in enumerate(zip(states, batches, strict=True)):
        expected, sums = jax.device_get(gradient(state, batch))
        assert found[1].loss[index] == pytest.approx(sums.loss, rel=1e-6)
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
        for one, several in zip(jax.tree.leaves(expected), jax.tree.leaves(found[0]), strict=True):
            np.testing.assert_allclose(several[index], one, rtol=0, atol=1e-6 * largest)


def test_scalars_are_fields_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each run has its own learning rate, dropout, weight decay and label smoothing, with the bits of a run alone."""
    monkeypatch.setattr(build, "build_corpus", lambda config: tiny.corpus())
    changes: list[dict[str, Any]] = [
        {"learning_rate": 0.01, "weight_decay": 0.1},
        {"learning_rate": 0.003, "model__dropout_rate": 0.5},
        {"seed": 5, "label_smoothing": 0.2, "weight_decay": 0.3},
    ]
    configs = [tiny_config(optimizer="adamw", epochs=1, **change) for change in changes]
    members = [Member(config, tmp_path / f"together_{index}") for index, config in enumerate(configs)]
    results = together.train(members, "t", SeveralProgress(2, "abc"))
    found = []
    for index, config in enumerate(configs):
        [result] = together.train([Member(config, tmp_path / str(index))], "t", SeveralProgress(2, "a"))
        assert outcome(members[index].workdir) == outcome(tmp_path / str(index))
        assert not isinstance(result, Exception)
        found.append(result["final_val_loss"])
    assert [result["final_val_loss"] for result in results] == found
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    ("change", "field"), [({"batch_size": 7}, "batch_size"), ({"model__dropout_rate": 0.0}, "model.dropout_rate")]
)
def test_other_fields_are_refused(change: dict[str, Any], field: str, tmp_path: Path):
    members = [Member(tiny_config(**one), tmp_path / str(index)) for index, one in enumerate([{}, change])]
    with pytest.raises(UsageError, match=f"^config.{field} must be the same in all runs of one program$"):
        together.train(members, "t", SeveralProgress(2, "ab"))
    assert not list(tmp_path.iterdir())


def test_a_run_that_diverges_stops_no_other(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Its parameters are infinite from its third step on; then the same command leaves what is finished as it is."""
    original = steps.initial_state

    def poisoned(plan: steps.Plan, rng: jax.Array, scalars: steps.Scalars) -> steps.State:
        state = original(plan, rng, scalars)
        if rng is not None and not isinstance(rng, jax.core.Tracer) and jax.random.key_data(rng)[1] == 3:
            state.params["logits"]["bias"] = state.params["logits"]["bias"].at[0].set(np.inf)
        return state

    monkeypatch.setattr(steps, "initial_state", poisoned)
    for _ in range(2):
        tiny.train(monkeypatch, tmp_path, SEEDS, code=1)
        out, err = capsys.readouterr()
        assert err == "error: 1 of 3 runs failed: seed 3\n"
        assert "seed 3: epoch 1, step 1: loss nan, or its gradient, is not finite, at config.learning_rate=0.003" in out
        assert json.loads((tmp_path / "seed_3" / "diverged.json").read_text())["step"] == 1
        assert attempts(tmp_path / "seed_3")[-1]["exit_code"] == 3
        for seed in (0, 4):
            assert outcome(tmp_path / f"seed_{seed}") == outcome(alone / f"seed_{seed}")
            assert len(attempts(tmp_path / f"seed_{seed}")) == 1


def test_a_signal_saves_all_and_the_same_command_goes_on(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """One run is behind the others, as after a SIGKILL between two saves, and one is in the next epoch."""
    calls, call = [], Programs._trained

    def interrupted(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGTERM)
        return call(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Programs, "_trained", interrupted)
        tiny.train(monkeypatch, tmp_path, SEEDS, "--config.steps_per_call=1", code=75)
    said = "error: stopped by SIGTERM: all 3 runs are saved, and the same command continues\n"
    assert capsys.readouterr().err == said
    places = [checkpoints.steps_of(tmp_path / f"seed_{seed}", "last")[-1] for seed in (0, 3, 4)]
    assert places == [3, 3, 2]
    tiny.train(monkeypatch, tmp_path / "seed_3", "--config.seed=3", "--config.epochs=1")
    shutil.rmtree(tmp_path / "seed_0")
    tiny.train(monkeypatch, tmp_path, SEEDS)
    for seed in (0, 3, 4):
        assert outcome(tmp_path / f"seed_{seed}") == outcome(alone / f"seed_{seed}")
    tiny.train(monkeypatch, tmp_path, SEEDS)
    assert capsys.readouterr().out.count("is finished: there is nothing to train.") == 3


def test_folders_that_cannot_be_used(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Nothing is started, and nothing is left behind."""
    shutil.copytree(alone / "seed_3", tmp_path / "seed_3")
    before = tiny.tree(tmp_path)
    with lock.hold(tmp_path / "seed_3"):
        tiny.train(monkeypatch, tmp_path, SEEDS, code=5)
    tiny.train(monkeypatch, tmp_path / "seed_3", SEEDS, code=2)
    tiny.train(monkeypatch, tmp_path, SEEDS, "--config.learning_rate=0.5", code=2)
    busy, run, other = capsys.readouterr().err.splitlines()
    assert busy.startswith(f"error: --workdir={tmp_path / 'seed_3'} is in use by process ")
    assert run == f"error: --workdir={tmp_path / 'seed_3'} holds a run: with config.seeds=0,3..4 choose another folder"
    assert "learning_rate is 0.003 there and 0.5 here" in other
    assert {k: v for k, v in tiny.tree(tmp_path).items() if "LOCK" not in k} == {
        k: v for k, v in before.items() if "LOCK" not in k
    }


def test_what_shows_one_run_shows_each_of_several():
    """Of several processes, those that do not write show nothing, in a stream of their own."""
    silent = Progress(2)
    assert silent.of(3) is silent


def test_more_runs_than_fit_into_the_memory(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The number of runs in a call is halved until they fit."""
    tried = []

    def fits(programs: Programs, _: Any) -> bool:
        tried.append(programs.parallel)
        return programs.parallel < 3

    monkeypatch.setattr(Programs, "_fits", fits)
    tiny.train(monkeypatch, tmp_path, SEEDS, "--config.runs_per_call=9")
    assert tried == [3, 2]
    for seed in (0, 3, 4):
        expected = run_folder.read_result(alone / f"seed_{seed}")
        assert run_folder.read_result(tmp_path / f"seed_{seed}")["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)
