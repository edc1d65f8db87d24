"""A whole run on a slice of the embedded corpus: what it leaves behind, that it repeats, and what it refuses."""

import io
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tiny

import experiments
from attn.models.classifier import Classifier
from experiments import settings
from experiments.command_line import commands
from experiments.errors import DataError, UsageError
from experiments.storage import files, metrics, run_folder
from experiments.training import build, evaluation, steps, train
from experiments.training.progress import BriefProgress, Progress, duration

pytestmark = pytest.mark.usefixtures("fast_compilation")  # as `tiny.train`, so that bits can be compared
COLUMNS = (
    "epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
    "examples_per_second", "real_tokens_per_second", "step_milliseconds", "compile_seconds",
)  # fmt: skip
TIMINGS = COLUMNS[6:]
RESULTS = (
    "label", "parameters", "epochs", "best_epoch", "best_val_loss", "best_val_accuracy", "final_val_loss", "final_val_accuracy",
    "test_loss", "test_accuracy", "best_test_loss", "best_test_accuracy", "test",
    "train_seconds", "compile_seconds", "corpus_sha256", "attention", "trimmed_to", "versions", "device",
    "git_commit",
)  # fmt: skip


def untimed(workdir: Path) -> list[str]:
    """The lines of metrics.jsonl without the timing columns, as JSON again: equal lines are equal bytes."""
    rows = run_folder.read_rows(workdir)
    return [json.dumps({k: v for k, v in row.items() if k not in TIMINGS}) for row in rows]


def loss_and_accuracy(run: run_folder.Run, tokens: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """In NumPy, from the logits that the restored model gives."""
    logits = np.asarray(jax.jit(run.model.apply)({"params": run.params}, tokens.astype(np.int32)), np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels].mean(), (logits.argmax(-1) == labels).mean()


def test_what_a_run_leaves_behind(finished_run: Path):
    files = tiny.tree(finished_run)
    assert {"config.json", "metrics.jsonl", "result.json", "curves.png", "curves.svg", "vocabulary.txt"} < files.keys()
    assert any(name.startswith("tensorboard/events.") for name in files)
    assert not [name for name in files if name.endswith(".part")]
    assert files["curves.png"].startswith(b"\x89PNG")
    assert b"</svg>" in files["curves.svg"]
    assert b"<!-- transformer -->" in files["curves.svg"], "the legend"


def test_config_is_the_resolved_one(finished_run: Path):
    config = run_folder.read_config(finished_run)
    assert (config.batch_size, config.model.embed_dim, config.data.name) == (tiny.BATCH_SIZE, 5, "verdicts")
    content = json.loads((finished_run / "config.json").read_text())
    assert content == json.loads(json.dumps(config.to_dict()))
    assert settings.flatten(config).keys() == settings.RULES.keys()


def test_metrics_have_a_row_an_epoch(finished_run: Path):
    rows = run_folder.read_rows(finished_run)
    assert [tuple(row) for row in rows] == [COLUMNS] * tiny.EPOCHS
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["step"] for row in rows] == [5, 10], "90 examples are five batches of 20, the last one ragged"
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        for examples, accuracy in ((90, row["train_accuracy"]), (31, row["val_accuracy"])):
            assert round(accuracy * examples) / examples == accuracy, "every example is counted once"
        assert row["examples_per_second"] == pytest.approx(90 / (5e-3 * row["step_milliseconds"]))
    tokens = np.count_nonzero(tiny.corpus().train.tokens)
    assert rows[0]["real_tokens_per_second"] / rows[0]["examples_per_second"] == pytest.approx(tokens / 90)
    assert rows[0]["compile_seconds"] > 0 == rows[1]["compile_seconds"]


def test_tensorboard_is_written_without_importing_torch(monkeypatch: pytest.MonkeyPatch):
    """Which takes longer to import than all else that a training needs."""
    asked = []

    class NoTorch:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "torch":
                asked.append(name)
                raise ModuleNotFoundError(name)

    for name in [name for name in sys.modules if name == "torch" or name.partition(".")[0] == "tensorboardX"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTorch, *sys.meta_path])
    assert metrics.summary_writer() is sys.modules["tensorboardX"].SummaryWriter
    assert asked == []
    assert "torch" not in sys.modules


def test_result(finished_run: Path):
    result, rows = run_folder.read_result(finished_run), run_folder.read_rows(finished_run)
    assert result["label"] == "transformer", "the name of the page, which is also that of its curve"
    assert tuple(key for key in result if key not in ("vocabulary_size", "max_length")) == RESULTS
    best = rows[result["best_epoch"] - 1]
    assert result["best_val_accuracy"] == best["val_accuracy"] == max(row["val_accuracy"] for row in rows)
    assert result["best_val_loss"] == best["val_loss"]
    assert (result["final_val_loss"], result["final_val_accuracy"]) == (rows[-1]["val_loss"], rows[-1]["val_accuracy"])
    vocabulary, embed, head, feed = result["vocabulary_size"], 5, 2 * 3, 7
    attention = 3 * (embed * head + head) + head * embed + embed
    block = attention + 4 * embed + (embed * feed + feed) + (feed * embed + embed)
    assert result["parameters"] == vocabulary * embed + block + embed * 2 + 2
    assert result["train_seconds"] == pytest.approx(sum(5e-3 * row["step_milliseconds"] for row in rows))
    assert result["versions"].keys() >= {"jax", "flax", "numpy"}
    assert [line.split(",")[0] for line in result["attention"]] == ["chunked"]


def test_a_run_says_what_its_attention_runs_as():
    config = settings.load_page("single_head", "imdb")
    found = {}
    for config.model.mask_padding in (False, True):
        found[config.model.mask_padding] = build.attention_of(Classifier(settings.model_config(config, 30, 256)))
    tiled = "chunked, tiles of 256 queries by 256 keys"
    assert found == {False: [tiled, "pooled"], True: [tiled, "pooled"]}


@pytest.mark.parametrize(("split", "prefix"), [("validation", "val"), ("test", "test")])
def test_evaluate_gives_what_training_gave(
    split: str, prefix: str, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """And what NumPy gives for the restored model, with the measures by label; validation does not touch the test split."""
    reads = []
    monkeypatch.setattr(build, "build_corpus", lambda config: tiny.corpus(lambda: reads.append("test")))
    before = tiny.tree(finished_run)
    assert commands.main(["evaluate", f"--workdir={finished_run}", f"--split={split}"]) == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    result = run_folder.read_result(finished_run)
    source = result if split == "test" else run_folder.read_rows(finished_run)[-1]
    measures = {name: printed.pop(name) for name in ("macro_f1", "recall", "confusion", "ece")}
    assert printed == {key: source[key] for key in (f"{prefix}_loss", f"{prefix}_accuracy")}
    assert (out.count("\n"), err) == (1, "")
    assert reads == ["test"] * (split == "test")
    examples = tiny.corpus().test() if split == "test" else tiny.corpus().validation
    confusion = np.array(measures["confusion"])
    assert confusion.sum(1).tolist() == np.bincount(examples.labels, minlength=2).tolist()
    assert np.trace(confusion) / confusion.sum() == pytest.approx(printed[f"{prefix}_accuracy"])
    if split == "test":
        assert measures.items() <= result["test"].items()
    assert tuple(printed.values()) == pytest.approx(
        loss_and_accuracy(experiments.load(finished_run), examples.tokens, examples.labels), rel=1e-5
    )
    assert tiny.tree(finished_run) == before


def test_load_gives_model_parameters_and_tokenizer(finished_run: Path):
    run = experiments.load(str(finished_run))
    assert run.tokenizer == tiny.corpus().tokenizer
    encoded = run.tokenizer.pad([run.tokenizer.encode(b"the film was lovely, not dull").ids]).astype(np.int32)
    assert jax.eval_shape(run.model.apply, {"params": run.params}, encoded).shape == (1, 2)
    assert sum(leaf.size for leaf in run.params["logits"].values()) == 5 * 2 + 2


def test_the_same_config_gives_the_same_bytes(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However many steps a call runs; the first run chose for itself."""
    tiny.train(monkeypatch, tmp_path / "again", "--config.steps_per_call=2", "--config.data.dir=/nowhere")
    assert untimed(tmp_path / "again") == untimed(finished_run)
    keys = ("test_loss", "test_accuracy", "parameters", "best_epoch")
    first, again = run_folder.read_result(finished_run), run_folder.read_result(tmp_path / "again")
    assert [again[key] for key in keys] == [first[key] for key in keys]


def test_another_seed_gives_other_numbers(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that the test before can fail; and the test split is read once, when every epoch is on disk."""
    workdir, rows_at_test = tmp_path / "run", []
    tiny.train(
        monkeypatch,
        workdir,
        "--config.seed=1",
        on_test=lambda: rows_at_test.append(len((workdir / "metrics.jsonl").read_text().splitlines())),
    )
    assert rows_at_test == [tiny.EPOCHS]
    assert not set(untimed(workdir)) & set(untimed(finished_run))


def test_a_finished_run_is_never_written_over(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    before = tiny.tree(finished_run)
    tiny.train(monkeypatch, finished_run, "--config.seed=1", code=2)
    expected = (
        f"error: --workdir={finished_run} holds a run of another config: seed is 0 there and 1 here; choose another folder\n"
    )
    assert capsys.readouterr() == ("", expected)
    assert tiny.tree(finished_run) | {"LOCK": b""} == before | {"LOCK": b""}


@pytest.mark.parametrize("inside", ["", "run", "deep/er/run"])
def test_a_workdir_that_is_no_folder(inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Refused before the data is read."""
    monkeypatch.setattr(build, "build_corpus", lambda config: pytest.fail("the data was read"))
    (tmp_path / "file").write_text("here")
    workdir = tmp_path / "file" / inside
    with pytest.raises(UsageError, match=f"^--workdir={workdir} cannot be written: {tmp_path / 'file'} is not a folder$"):
        train.train(settings.load_page("transformer", "verdicts"), workdir, "transformer")
    assert tiny.tree(tmp_path) == {"file": b"here"}


def test_a_workdir_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also for root, who may write to every folder that is not on a read-only disk."""
    monkeypatch.setattr(build, "build_corpus", lambda config: pytest.fail("the data was read"))
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UsageError, match=f"{tmp_path} is read-only$"):
        train.train(settings.load_page("transformer", "verdicts"), tmp_path / "deep" / "run", "transformer")
    with pytest.raises(UsageError, match=r"cannot be written: File name too long$"):
        train.train(settings.load_page("transformer", "verdicts"), tmp_path / ("n" * 300), "transformer")
    assert not list(tmp_path.iterdir())


def test_without_data_there_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def refuse(config: settings.Config):
        raise DataError("no IMDB under here")

    monkeypatch.setattr(build, "build_corpus", refuse)
    assert commands.main(["train", tiny.PAGE, f"--workdir={tmp_path / 'run'}"]) == 4
    assert capsys.readouterr() == ("", "error: no IMDB under here\n")
    assert not list(tmp_path.iterdir())


def test_a_diverged_run_has_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """A loss that is no number in the second epoch: exit code 3, and only the rows before it."""
    means, calls = steps.Sums.means, []

    def diverge(sums: steps.Sums) -> tuple[float, float]:
        calls.append(sums)
        loss, accuracy = means(sums)
        return (loss if len(calls) <= 2 else math.nan), accuracy  # training, validation; training

    monkeypatch.setattr(steps.Sums, "means", diverge)
    tiny.train(monkeypatch, tmp_path / "run", on_test=lambda: pytest.fail("the test split was read"), code=3)
    err = capsys.readouterr().err
    assert err.startswith("error: epoch 2: loss nan, val_loss nan, at config.learning_rate=0.003; diverged.json says more")
    assert err.count("\n") == 1
    assert [row["epoch"] for row in run_folder.read_rows(tmp_path / "run")] == [1]
    assert not (tmp_path / "run" / "result.json").exists()
    experiments.load(tmp_path / "run")  # the last finite checkpoint


def test_a_corpus_that_has_changed_is_not_evaluated(finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    other = tiny.corpus()
    object.__setattr__(other, "tokenizer", type(other.tokenizer)(other.tokenizer.words[::-1], 98, 24))
    monkeypatch.setattr(build, "build_corpus", lambda config: other)
    with pytest.raises(DataError, match=r"was trained on another version of the corpus verdicts$"):
        evaluation.evaluate(finished_run, "validation")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


ROW = {
    "epoch": 1, "train_loss": 0.5, "train_accuracy": 0.25, "val_loss": 0.75, "val_accuracy": 0.125,
    "step_milliseconds": 12.34, "examples_per_second": 5678.9,
}  # fmt: skip


def sums(loss: float, correct: int, examples: int) -> steps.Sums:
    return steps.Sums(np.float32(loss), np.int32(correct), np.int32(examples), np.int32(7))  # type: ignore[arg-type]


def test_progress_in_a_terminal_rewrites_its_line():
    progress = Progress(12, stream := Terminal())
    progress.update(1, 5, 20, sums(400.0, 200, 800), seconds=2.0)
    start, line = stream.getvalue().split("\r")
    assert start == ""
    assert line.split() == [
        "Epoch",
        "1/12",
        "5/20",
        "━━━━━",
        "loss",
        "0.5000",
        "accuracy",
        "0.2500",
        "400",
        "examples/s",
        "6",
        "s",
        "left",
    ]
    progress.update(1, 20, 20, sums(1.0, 1, 2), seconds=4.0)
    progress.epoch(ROW, seconds_left=0)
    lines = stream.getvalue().split("\r")[1:]
    assert "\n" not in "".join(lines[:-1])
    assert lines[-1].endswith("\n")
    assert all(len(late.rstrip("\n")) >= len(early.rstrip()) for early, late in itertools.pairwise(lines)), "no rest"


def test_progress_says_once_how_long_the_run_takes():
    progress = Progress(10, stream := io.StringIO())
    progress.start()
    progress.estimate(epoch_seconds=13.0, epochs=10)
    progress.estimate(epoch_seconds=20.0, epochs=9)
    assert stream.getvalue().splitlines()[1:] == ["10 epochs: about 3 minutes"]
    resumed = Progress(10, stream := io.StringIO())
    resumed.estimate(epoch_seconds=13.0, epochs=1)
    assert stream.getvalue() == "1 epoch left: about 15 seconds\n"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "5 seconds"), (41, "40 seconds"), (89, "90 seconds"), (95, "2 minutes"), (5040, "84 minutes")]
)
def test_duration(seconds: float, words: str):
    assert duration(seconds) == f"about {words}"


def test_brief_progress_is_one_line_a_run():
    for stream, shown in ((Terminal(), 3), (io.StringIO(), 1)):
        progress = BriefProgress(12, stream)
        progress.start()
        progress.estimate(epoch_seconds=3.0, epochs=12)
        progress.update(1, 5, 20, sums(400.0, 200, 800), seconds=2.0)
        progress.epoch(ROW, seconds_left=3.0)
        progress.close("accuracy 0.500")
        lines = stream.getvalue().replace("\r", "\n").split("\n")
        assert [line.strip() for line in lines if line.strip()][-1] == "accuracy 0.500"
        assert len([line for line in lines if line.strip()]) == shown


def test_progress_elsewhere_is_a_plain_line_an_epoch():
    progress = Progress(12, stream := io.StringIO())
    progress.update(1, 5, 20, sums(400.0, 200, 800), seconds=2.0)
    assert stream.getvalue() == ""
    progress.epoch(ROW, seconds_left=61.4)
    progress.epoch(ROW | {"epoch": 12}, seconds_left=0)
    body = "loss 0.5000  accuracy 0.2500  val_loss 0.7500  val_accuracy 0.1250  12.3 ms/step  5,679 examples/s"
    assert stream.getvalue() == f"Epoch  1/12  {body}  61 s left\nEpoch 12/12  {body}\n"
