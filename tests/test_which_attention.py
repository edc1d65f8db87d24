"""Every example of docs/which-attention.md runs, and gives what the page says."""

import doctest
import re
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

pytestmark = pytest.mark.usefixtures("fast_compilation")
PAGE = (Path(__file__).parent.parent / "docs" / "which-attention.md").read_text(encoding="utf-8")
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.DONT_ACCEPT_TRUE_FOR_1


class Run(NamedTuple):
    attempted: int
    failed: int
    report: str
    outputs: list[tuple[str, str]]  # what the page says, and what came out


class Recorder(doctest.OutputChecker):
    def __init__(self) -> None:
        self.outputs: list[tuple[str, str]] = []

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        self.outputs.append((want, got))
        return super().check_output(want, got, optionflags)


def run(text: str) -> Run:
    """All examples of a page, in order, as one session."""
    unfenced = re.sub(r"(?m)^```.*$", "", text)  # a closing fence would be part of the output before it
    recorder, report = Recorder(), []
    runner = doctest.DocTestRunner(recorder, verbose=False, optionflags=FLAGS)
    examples = doctest.DocTestParser().get_doctest(unfenced, {"__name__": "page"}, "page", "docs/which-attention.md", 0)
    with jax.default_matmul_precision("highest"):
        result = runner.run(examples, out=report.append)
    return Run(result.attempted, result.failed, "".join(report), recorder.outputs)


@pytest.fixture(scope="module")
def page(fast_compilation) -> Run:
    return run(PAGE)


def test_every_example_gives_what_the_page_says(page):
    assert page.failed == 0, page.report
    assert page.attempted == PAGE.count(">>> ") >= 150


def test_another_number_on_the_page_would_fail(page):
    """For each output with a number or a truth in it, as the first, the last and any other of them."""
    checker, wrong = doctest.OutputChecker(), 0
    for want, got in page.outputs:
        for place in re.finditer(r"\d|True|False", want):
            other = {"True": "False", "False": "True"}.get(place[0]) or str((int(place[0]) + 1) % 10)
            changed = want[: place.start()] + other + want[place.end() :]
            assert not checker.check_output(changed, got, FLAGS), changed
            wrong += 1
    assert wrong >= 200


@pytest.mark.parametrize(
    "example, failed",
    [
        (">>> 2 * 142\n284", 0),
        (">>> 2 * 142\n285", 1),
        (">>> 2 * 142", 1),  # an output that the page leaves out
        (">>> 1 / 0\n284", 1),
        (">>> True\n1", 1),
    ],
)
def test_the_runner_can_fail(example, failed):
    found = run(f"# A page\n\n```python\n{example}\n```\n\nMore of it.\n")
    assert (found.attempted, found.failed) == (1, failed)
    assert ("docs/which-attention.md" in found.report) == bool(failed)


def test_every_section_has_examples_and_none_hides_a_number():
    sections = re.split(r"(?m)^(?=##)", PAGE)[1:]
    assert len(sections) >= 13
    for section in sections:
        heading, _, body = section.partition("\n")
        assert ">>> " in body or not body.strip(), heading
    for block in re.findall(r"(?ms)^```(.*?)^```", PAGE):
        assert block.startswith("python\n>>> ")
    assert "doctest:" not in PAGE  # no directive: none is skipped or cut short
