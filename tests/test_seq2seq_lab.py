"""The lab on pairs of texts: the loss of a pair, and a small run from its file to the alignment of its output."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import experiments
from configs import seq2seq_rnn, seq2seq_transformer
from experiments import pair_predict
from experiments.command_line import commands
from experiments.data import pairs
from experiments.data.pair_tokenizer import PairTokenizer
from experiments.errors import UsageError
from experiments.storage import run_folder
from experiments.training import judgement, steps

pytestmark = pytest.mark.usefixtures("fast_compilation")

ROWS = [(f"{a} {b}", f"{b}{a}") for a in "abcdef" for b in "ghijk"]


def train(file: Path, workdir: Path, *flags: str) -> None:
    """Trains a small model on ROWS, through the command line."""
    file.write_text("".join(f"{source}\t{target}\n" for source, target in ROWS))
    small = ["embed_dim=3", "hidden_dim=4", "encoder_cell=simple", "dropout_rate=0.1"]
    arguments = [f"--config={seq2seq_rnn.__file__}:pairs", f"--config.data.path={file}", "--config.devices=1"]
    arguments += ["--config.epochs=2", "--config.batch_size=10", "--config.schedule=constant", "--config.steps_per_call=1"]
    arguments += [f"--config.model.{field}" for field in small]
    with tiny.fast_compilation():
        assert commands.main(["train", *arguments, f"--workdir={workdir}", *flags]) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    train(folder / "pairs.tsv", folder / "run")
    return folder / "run"


def test_the_loss_of_a_pair_is_the_mean_over_its_tokens():
    random = np.random.default_rng(0)
    logits, target = random.normal(size=(4, 6)).astype(np.float32), np.array([4, 5, 3, 0])
    noise = steps.Noise(jax.random.key(0), jnp.float32(0), jnp.float32(0.2))
    by = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
    for given, smoothing in ((None, 0.0), (noise, 0.2)):
        loss, correct = steps._score_of_target(jnp.asarray(logits), given, jnp.asarray(target))
        expected = (1 - smoothing) * by[[0, 1, 2], [4, 5, 3]].mean() + smoothing * by[:3].mean()
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert not correct
    best = np.full((4, 6), -9.0, np.float32)
    best[range(4), [4, 5, 3, 2]] = 9  # what follows the end does not count
    best[0, 0] = 99  # padding is no token that could be chosen
    assert steps._score_of_target(jnp.asarray(best), None, jnp.asarray(target))[1]


def test_measures_of_targets_by_hand():
    labels = np.array([[4, 3, 0], [4, 5, 3], [5, 5, 3]])
    predicted = np.array([[4, 3, 7], [4, 4, 3], [5, 5, 3]])
    found = judgement.measures_of_pairs(judgement.Judged(labels, predicted, np.ones((3, 3))))
    assert found == {
        "exact_match": 2 / 3,
        "token_accuracy": 7 / 8,
        "by_target_length": {"1": [1, 1], "2": [2, 1]},
    }


def test_a_run_says_what_greedy_decoding_says(run):
    """`test_accuracy` is computed without decoding; here the test split is decoded."""
    result = json.loads((run / "result.json").read_text())
    loaded = experiments.load(run)
    test = pairs.load(loaded.config.data).test()
    rows = pairs.rows(loaded.config.data)["test"]
    outputs = [answer.targets[0][0] for answer in pair_predict.answers(loaded, [row.source.encode() for row in rows])]
    exact = [output == [i for i in label if i > 3] for output, label in zip(outputs, test.labels.tolist(), strict=True)]
    assert result["test_accuracy"] == result["test"]["exact_match"] == pytest.approx(np.mean(exact))
    assert (result["target_length"], result["max_length"]) == (3, 3)


def test_a_run_that_was_stopped_goes_on_with_the_same_bits(run, tmp_path):
    train(tmp_path / "pairs.tsv", tmp_path / "run", "--config.epochs=1")
    train(tmp_path / "pairs.tsv", tmp_path / "run")
    for old, new in zip(*(jax.tree.leaves(experiments.load(each).params) for each in (run, tmp_path / "run")), strict=True):
        np.testing.assert_array_equal(old, new)


def test_predict_prints_and_draws(run, tmp_path, capsys):
    picture = tmp_path / "a.svg"
    flags = ["--words=a k", "--beam=2", "--all", "--align", "--show_text", f"--picture={picture}"]
    assert commands.main(["predict", f"--workdir={run}", *flags]) == 0
    line, header, *drawn = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert (said["tokens"], said["out_of_vocabulary"], said["text"]) == (3, 0, "a k")
    assert said["beam"][0]["output"] == said["output"]
    assert said["beam"][0]["log_probability"] >= said["beam"][1]["log_probability"]
    assert header.split() == ["a", "k"]
    output = re.findall(r"\[unknown\]|.", said["output"])
    assert len(drawn) == len(output)
    root = ElementTree.fromstring(picture.read_text())
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")] == ["a", " ", "k", *output]
    assert commands.main(["attend", f"--workdir={run}", "--words=a k", f"--out={tmp_path / 'a.html'}"]) == 0
    assert "<svg" in (tmp_path / "a.html").read_text()


def test_bad_input_is_one_line(run, finished_run, tmp_path, capsys):
    out = tmp_path / "a.html"
    for arguments, message in (
        (["predict", f"--workdir={run}", "--words= "], "line 1 is empty: a source must have at least one token"),
        (["predict", f"--workdir={run}", "--words=a", "--beam=0"], "--beam=0 must be an integer from 1 to 1,000"),
        (["predict", f"--workdir={run}", "--words=a", "--picture=a.png"], "--picture=a.png must end with .svg or .html"),
        (["predict", f"--workdir={finished_run}", "--words=a", "--align"], "--align goes with a run of pairs of texts"),
        (["predict", f"--workdir={run}", "--words=a", "--length_penalty=1"], "--length_penalty=1 goes with --beam=2 or more"),
        (["predict", f"--workdir={finished_run}", "--words=a", "--beam=2"], "--beam goes with a run of pairs of texts"),
        (["attend", f"--workdir={run}", "--words=a", f"--out={out}", "--layer=1"], "--layer=1 must be an integer from 0 to 0"),
        (["attend", f"--workdir={run}", "--words=a", f"--out={out}", "--head=1"], "--head=1 must be an integer from 0 to 0"),
        (["attend", f"--workdir={run}", "--words=a", f"--out={out}", "--live"], "--live=True goes with a run that classifies"),
        (["attend", f"--workdir={run}", "--words=a", f"--out={out}", "--queries=0"], "--queries=0 goes with a run that classi"),
        (["attend", f"--workdir={run}", "--words=", f"--out={out}"], "line 1 is empty: a source must have at least one token"),
    ):
        refused(arguments, message, capsys)
    assert not list(tmp_path.iterdir())


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    """One line, and nothing before it."""
    assert commands.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_a_model_without_attention_has_no_alignment(run, tmp_path, capsys, monkeypatch):
    """The command says so before it prints an output."""
    loaded = experiments.load(run)
    loaded.config.model.score = "none"
    monkeypatch.setattr(run_folder, "load", lambda *_: loaded)
    picture = tmp_path / "a.svg"
    for arguments in (["predict", "--align"], ["predict", f"--picture={picture}"], ["attend", f"--out={picture}"]):
        message = "the model has no attention (config.model.score=none): there is no alignment to draw"
        refused([*arguments, f"--workdir={run}", "--words=a"], message, capsys)
    assert not picture.exists()


def test_an_empty_output_has_no_alignment_and_the_next_line_is_answered(run, tmp_path, capsys, monkeypatch):
    source, weights = pair_predict.Source([4], ["a"], 0, 0), np.ones((1, 1))
    empty = pair_predict.Answer(source, [([], -1.0)], True, {"layer 0, mean of the heads": weights[:0]})
    other = pair_predict.Answer(source, [([5], -2.0)], True, {"layer 0, mean of the heads": weights})
    monkeypatch.setattr(pair_predict, "answers", lambda *_: iter((empty, other)))
    assert commands.main(["predict", f"--workdir={run}", "--words=a", "--align"]) == 0
    first, second, *drawn = capsys.readouterr().out.splitlines()
    assert json.loads(first)["output"] == ""
    assert drawn == ["  a", f"{json.loads(second)['output']} █"]


def test_the_map_of_a_layer_and_a_head_is_the_first_one():
    """Of a transformer of two layers and three heads; by default the mean of the last layer."""
    weights = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3, 2))  # [layers, N, U, S]
    config = seq2seq_transformer.get_config("pairs")
    config.model.num_heads = 3
    by = PairTokenizer((b"x", b"y"), 6, 4, 3)
    answer = pair_predict.Answer(by.source("x y x x"), [([4, 5], -1.0)], True, pair_predict._maps(list(weights)))
    run = run_folder.Run(config, None, None, by, (), "")
    for first, expected in (
        ((), weights[1].mean(0)),
        ((0,), weights[0].mean(0)),
        ((None, 2), weights[1, 2]),
        ((0, 1), weights[0, 1]),
    ):
        pair_predict.check_maps(run, *first)
        drawn = pair_predict.alignment(run, answer, *first)
        np.testing.assert_array_equal(next(iter(drawn.maps.values())), expected)
        assert (len(drawn.maps), drawn.title) == (8, "x y")
    for first, message in (
        ((2,), "--layer=2 must be an integer from 0 to 1: the layers of the decoder are 2"),
        ((0, 3), "--head=3 .*from 0 to 2: the heads"),
    ):
        with pytest.raises(UsageError, match=f"^{message}"):
            pair_predict.check_maps(run, *first)
