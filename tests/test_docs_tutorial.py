"""The exercises of the tutorial: the solutions pass the check, and what is wrong does not."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "tutorial"
CHECK = runpy.run_path(str(FOLDER / "check.py"))
SOLUTIONS = runpy.run_path(str(FOLDER / "solutions.py"))


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum()


WRONG = {  # what a reader may write
    "score": lambda query, key: sum(query) * sum(key),
    "softmax": softmax,  # overflows
    "masked_softmax": lambda scores, mask: softmax(np.where(mask, scores, -1e9)),  # the mean where nothing is allowed
    "gaussian_score": lambda query, key, width: -np.sum(np.subtract(query, key) ** 2) / (2 * width),
    "self_attention": lambda x, w_query, w_key, w_value: SOLUTIONS["self_attention"](x, w_key, w_query, w_value),
    "split_heads": lambda x, num_heads: np.reshape(x, (len(x), -1, num_heads)).swapaxes(1, 2),
    "sinusoidal": lambda length, dim: np.roll(SOLUTIONS["sinusoidal"](length, dim), 1, axis=1),  # cosine first
    "layer_norm": lambda x: (x - np.mean(x)) / np.std(x),  # fails where all are equal
    "cross_entropy": lambda logits, label: -np.log(softmax(logits))[label],
    "entropy": lambda weights: -np.sum(weights * np.log(weights)),
}


def test_the_solutions_are_right():
    assert set(CHECK["faults"](SOLUTIONS).values()) == {None}


@pytest.mark.parametrize("name", CHECK["EXERCISES"])
def test_a_wrong_answer_is_found(name):
    with np.errstate(all="ignore"):
        found = CHECK["faults"](SOLUTIONS | {name: WRONG[name]})
    assert f"{name}(" in found.pop(name)
    assert set(found.values()) == {None}


@pytest.mark.parametrize(
    "answer, wrong",
    [
        (lambda *_: None, "is None, and not|which is no array|is nan"),
        (lambda *_: "five", "which is no array of numbers"),
        (lambda *_: [5.0], r"has the shape \(1,\), and not \(\)"),
        (lambda: 5.0, "raises TypeError"),
    ],
)
def test_an_answer_of_another_kind_is_told(answer, wrong):
    assert re.search(wrong, CHECK["faults"](SOLUTIONS | {"score": answer})["score"])


def test_the_reader_starts_with_ten_exercises_one_on_each_page(capsys):
    assert CHECK["main"]([]) == 1
    assert re.findall(r" (\w+) +not written yet\n", capsys.readouterr().out) == CHECK["EXERCISES"]
    pages = sorted(FOLDER.glob("*.md"))
    assert len(pages) == len(CHECK["EXERCISES"]) == 10
    for page, name in zip(pages, CHECK["EXERCISES"], strict=True):
        assert f"`{name}`" in page.read_text(encoding="utf-8").partition("## Exercise")[2]


def test_the_program_reads_a_file(capsys):
    assert CHECK["main"]([str(FOLDER / "solutions.py")]) == 0
    assert CHECK["main"](["no_such.py"]) == 2
    assert capsys.readouterr().err == "error: no_such.py is not a file: it must be one Python file with the exercises\n"
