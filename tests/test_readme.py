"""The README and the pages: their Python examples run and print what the page says, and their links lead somewhere."""

import contextlib
import io
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jax
import pytest

pytestmark = pytest.mark.usefixtures("fast_compilation")
ROOT = Path(__file__).parent.parent
RUN = (
    "README.md",
    "docs/contract.md",
    "docs/layers.md",
    "docs/nnx.md",
    "docs/positions.md",
    "docs/transformations.md",
)  # docs/which-attention.md has a test of its own


def examples(page: str) -> list[tuple[str, str | None]]:
    """The Python blocks of a page, each with what it prints: the `text` block that follows, None where there is none."""
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", page)
    return [(code, printed or None) for code, printed in blocks]


def run(page: str) -> list[tuple[str, str]]:
    """Runs the Python blocks of a page in order, as one session; what each should print and what it prints."""
    namespace: dict[str, Any] = {"__name__": "page"}
    outputs = []
    for code, printed in examples(page):
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            exec(compile(code, "page", "exec"), namespace)
        if printed is not None:
            outputs.append((printed, stdout.getvalue()))
    return outputs


def dead_links(page: str, folder: str, files: set[str]) -> list[str]:
    """The links of a page in `folder` that lead to no file or folder of the repository, or to no heading there."""
    known = files | {parent.as_posix() for file in files for parent in Path(file).parents}
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", page))

    def leads_nowhere(link: str) -> bool:
        path, _, anchor = link.partition("#")
        target = os.path.normpath(Path(folder, path))
        if path and target not in known:
            return True
        return bool(anchor) and anchor not in anchors((ROOT / target).read_text(encoding="utf-8") if path else page)

    return list(filter(leads_nowhere, links))


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tracked_files() -> set[str]:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: git knows which files are part of the repository")
    return set(listed.stdout.splitlines())


@pytest.mark.parametrize("name", RUN)
def test_the_examples_run_and_print_what_the_page_says(name):
    if jax.default_backend() != "cpu":
        pytest.skip("the pages show what attn.explain prints on a CPU")
    outputs = run((ROOT / name).read_text(encoding="utf-8"))
    assert outputs
    for printed, actual in outputs:
        assert printed == actual


def test_every_link_leads_to_a_file_of_the_repository():
    files = tracked_files()
    pages = sorted(file for file in files if file.endswith(".md"))
    dead = {page: dead_links((ROOT / page).read_text(encoding="utf-8"), str(Path(page).parent), files) for page in pages}
    assert len(pages) >= 10
    assert {page: links for page, links in dead.items() if links} == {}


PAGE = """# A page

```python
print(6 * 7)
```

```text
42
```

See [one](one.md), [a heading](#a-page), [the folder](../docs/) and [a site](https://jax.dev).
"""
FILES = {"docs/README.md", "README.md"}


@pytest.mark.parametrize(
    "old, new, outputs, dead",
    [
        ("one.md", "README.md", [("42\n", "42\n")], []),
        ("6 * 7", "6 * 8", [("42\n", "48\n")], ["one.md"]),
        ("#a-page", "#another-page", [("42\n", "42\n")], ["one.md", "#another-page"]),
        ("one.md", "../README.md#no-such-heading", [("42\n", "42\n")], ["../README.md#no-such-heading"]),
        ("one.md", "../../README.md", [("42\n", "42\n")], ["../../README.md"]),  # outside of the repository
        ("../docs/", "../dosc/", [("42\n", "42\n")], ["one.md", "../dosc/"]),
    ],
)
def test_these_checks_can_fail(old, new, outputs, dead):
    page = PAGE.replace(old, new)
    assert run(page) == outputs
    assert dead_links(page, "docs", FILES) == dead


def test_an_example_that_fails_is_not_passed_over():
    with pytest.raises(NameError):
        run(PAGE.replace("6 * 7", "undefined"))


def test_the_readme_names_the_command_that_starts_it():
    assert "make quickstart" in (ROOT / "README.md").read_text(encoding="utf-8")
