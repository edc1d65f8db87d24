"""Every example of docs/which-attention.md runs, and gives what the page says; every number on the page is checked."""

import re

import jax
import pages
import pytest
from pages import Output

pytestmark = pytest.mark.usefixtures("fast_compilation")
PAGE = (pages.ROOT / "docs" / "which-attention.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outputs(fast_compilation) -> list[Output]:
    with jax.default_matmul_precision("highest"):
        return pages.run(PAGE)


def test_every_example_gives_what_the_page_says(outputs):
    assert [output for output in outputs if not output.right] == []
    assert len(outputs) == PAGE.count(">>> ") >= 150


def test_another_number_on_the_page_would_fail(outputs):
    """For each output with a number or a truth in it, as the first, the last and any other of them."""
    wrong = 0
    for output in outputs:
        for place in re.finditer(r"\d|True|False", output.said):
            other = {"True": "False", "False": "True"}.get(place[0]) or str((int(place[0]) + 1) % 10)
            changed = output.said[: place.start()] + other + output.said[place.end() :]
            assert not output._replace(said=changed).right, changed
            wrong += 1
    assert wrong >= 200


def test_every_section_has_examples_and_none_hides_a_number():
    sections = re.split(r"(?m)^(?=##)", PAGE)[1:]
    assert len(sections) >= 13
    for section in sections:
        heading, _, body = section.partition("\n")
        assert ">>> " in body or not body.strip(), heading
    for block in re.findall(r"(?ms)^```(.*?)^```", PAGE):
        assert block.startswith("python\n>>> ")
    assert "doctest:" not in PAGE  # no directive: none is skipped or cut short
