"""Predictions for lines that nobody would write: always one line of JSON for each, which a terminal can show."""

import io
import json
import random
import sys
import tracemalloc
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import experiments
from experiments import predict
from experiments.command_line import commands
from experiments.data import tokenizer as tokenizing
from experiments.storage import run_folder
from experiments.training import evaluation

KEYS = ["label", "probability", "tokens", "out_of_vocabulary"]


def predictions(capsys: pytest.CaptureFixture, *arguments: str) -> list[dict]:
    assert commands.main(["predict", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


def test_any_bytes(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Lines that nobody would write; tokens and unknown words counted by hand (a start mark is a token)."""
    lines = {
        b"the film was lovely\n": (5, 0),
        b"The FILM, was: lovely!\r\n": (5, 0),
        b"\n": (1, 0),
        b"\r\n": (1, 0),
        b"\0\n": (1, 1),
        b"\xff\xfe \xc3 film\n": (2, 2),
        "the caf\u00e9\u2028was\u0085dull <script>\n".encode(): (3, 1),  # one word from café to dull; script is known
        b"=cmd() \x1b[31m the\n": (2, 3),  # cmd, the escape, 31m
        b"the " * 250_000 + b"\n": (24, 0),
        b"x" * 1_000_000 + b"\n": (1, 1),
        b"film\rwas\n": (1, 1),
        b"the film": (3, 0),
    }
    (file := tmp_path / "reviews.txt").write_bytes(b"".join(lines))
    before = tiny.tree(finished_run)
    found = predictions(capsys, f"--workdir={finished_run}", str(file))
    assert [(row["tokens"], row["out_of_vocabulary"]) for row in found] == list(lines.values())
    assert all(list(row) == KEYS for row in found)
    assert all(row["label"] in ("neg", "pos") and 0.5 <= row["probability"] <= 1 for row in found)
    assert found[0] == found[1]
    run = experiments.load(finished_run)
    tokens = run.tokenizer.pad([run.tokenizer.encode(b"the film was lovely").ids])
    logits = np.asarray(jax.jit(run.model.apply)({"params": run.params}, tokens.astype(np.int32)), np.float64)[0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert found[0]["label"] == ("neg", "pos")[probabilities.argmax()]
    assert found[0]["probability"] == pytest.approx(probabilities.max(), abs=1e-5)
    assert tiny.tree(finished_run) == before


@pytest.mark.parametrize("words", [[], ["-"]])
@pytest.mark.parametrize("lines", [0, 1, 64, 65, 130])
def test_from_standard_input(
    words: list[str], lines: int, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """As many lines as came in, around the size of its batches; flags may stand anywhere, with a space or "="."""
    text = b"".join(b"the film was lovely" + b" lovely" * (number % 7) + b"\n" for number in range(lines))
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text)))
    found = predictions(capsys, *words, "--workdir", str(finished_run))
    assert [row["tokens"] for row in found] == [5 + number % 7 for number in range(lines)]


def test_from_a_closed_standard_input(finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys, "stdin", None)
    assert commands.main(["predict", f"--workdir={finished_run}"]) == 2
    assert capsys.readouterr() == ("", "error: FILE is missing, and standard input is closed\n")


def test_a_text_on_the_command_line(finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Also one of several lines, one of no words, and one whose bytes are no UTF-8. Standard input is not read."""
    monkeypatch.setattr(sys, "stdin", None)
    texts = {"the film was dull": 5, "the film\nwas\ndull\n": 5, "": 1, "caf\udce9": 1, "--workdir=x": 1}
    for text, tokens in texts.items():
        (row,) = predictions(capsys, f"--workdir={finished_run}", f"--words={text}")
        assert (row["tokens"], list(row)) == (tokens, KEYS)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"the film was dull\r\n", "the film was dull"),
        (b"", ""),
        ("caf\u00e9 \u4e2d \U0001f600".encode(), "caf\u00e9 \u4e2d \U0001f600"),
        (b"caf\xe9 \xff\xfe", "caf\ufffd \ufffd\ufffd"),
        (b"\x1b[31mred\x1b[0m\tthe\0end\x7f", " [31mred [0m the end "),
        ("a\u2028b\u0085c\u202ed\ufeffe".encode(), "a b c d e"),
        (b"<script>alert(1)</script>=cmd()", "<script>alert(1)</script>=cmd()"),
        (b"0123456789" * 7, "0123456789" * 6),
        ("\U0001f600".encode() * 70, "\U0001f600" * 60),
    ],
)
def test_the_text_that_is_shown(line: bytes, text: str, finished_run: Path):
    run = experiments.load(finished_run)
    assert predict._read(run.tokenizer, line.rstrip(b"\r\n"))[2] == text


def test_any_lines(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Made at random from hostile parts. The tokens are counted by a loop over characters, not by the tokenizer."""
    monkeypatch.setattr(tokenizing, "_PIECE", 5)  # so that lines are tokenized in many pieces
    parts = [
        b"the",
        b"FILM",
        b"was,",
        b" ",
        b" ",
        b"\t",
        b"-",
        b"\r",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
    ]
    parts += [
        b"\x1b[2J",
        b"<script>",
        b"=cmd()",
        b"\xf0\x9f",
        b"unknown" * 9,
        b"'",
        b'"',
        b"\\",
        b"{}",
        b"\x7f",
        b"\xe2\x80\xae",
    ]
    draw = random.Random(0)
    lines = [b"".join(draw.choices(parts, k=draw.randrange(60))) for _ in range(500)]
    lines += [draw.randbytes(draw.randrange(200)).replace(b"\n", b"") for _ in range(500)]
    (file := tmp_path / "lines").write_bytes(b"\n".join(lines) + b"\n")
    assert commands.main(["predict", f"--workdir={finished_run}", str(file), "--show_text"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    tokenizer = experiments.load(finished_run).tokenizer
    known = {word.decode("latin-1") for word in tokenizer.words[: tokenizer.vocabulary_size - 4]}
    for line, answer in zip(lines, out.splitlines(), strict=True):
        row = json.loads(answer)
        assert list(row) == [*KEYS, "text"]
        assert row["text"].isprintable()
        words = words_of(line.rstrip(b"\r"))
        unknown = sum(word not in known for word in words)
        tokens = 1 + sum(word in known or word.encode("latin-1") in tokenizer.words for word in words)
        assert (row["tokens"], row["out_of_vocabulary"]) == (min(tokens, tokenizer.max_length), unknown), line


def words_of(line: bytes) -> list[str]:
    """The words of a line as Keras' documentation tells: lower case, and its filters replaced by spaces."""
    words = [""]
    for byte in line:
        c = chr(byte).lower() if byte < 128 else chr(byte)
        if c in ' !"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n':
            words.append("")
        else:
            words[-1] += c
    return [word for word in words if word]


def test_a_long_line_takes_little_memory(finished_run: Path):
    """Its words alone would take 16 times its length."""
    tokenizer, line = experiments.load(finished_run).tokenizer, b"the unknownword " * 100_000
    tokenizer.encode(b"")  # makes its dictionary
    tracemalloc.start()
    ids, unknown, _ = predict._read(tokenizer, line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(ids), unknown) == (tokenizer.max_length, 100_000)
    assert peak < len(line)


def test_a_terminal_is_answered_line_by_line(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    class Terminal(io.BytesIO):
        answered = ""

        def isatty(self) -> bool:
            return True

        def __next__(self) -> bytes:
            Terminal.answered += capsys.readouterr().out
            assert Terminal.answered.count("\n") == self.asked
            self.asked += 1
            return super().__next__()

        asked = 0

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=Terminal(b"the film\nwas\n")))
    assert commands.main(["predict", f"--workdir={finished_run}"]) == 0
    assert Terminal.answered.count("\n") == 2


@pytest.mark.parametrize("flags", [[], ["--checkpoint=best"]])
def test_the_checkpoint_that_is_read(
    flags: list[str], finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    asked, load = [], run_folder.load
    monkeypatch.setattr(run_folder, "load", lambda folder, checkpoint: asked.append(checkpoint) or load(folder, checkpoint))
    monkeypatch.setattr(evaluation, "evaluate", lambda *arguments: asked.append(arguments[2]) or {})
    predictions(capsys, f"--workdir={finished_run}", "--words=the film", *flags)
    assert commands.main(["evaluate", f"--workdir={finished_run}", *flags]) == 0
    assert asked == (["best", "best"] if flags else ["last", "last"])
