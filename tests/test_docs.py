"""The pages: their Python runs and prints what they say, their commands are accepted, and their links lead somewhere."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import pages
import pytest
from pages import ROOT

from experiments.command_line import command_flags, commands
from experiments.errors import UsageError

pytestmark = pytest.mark.usefixtures("fast_compilation")
PAGES = [path for path in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md") if (ROOT / path).exists()]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
TUTORIAL = "docs/tutorial"
PAGES_OF_TUTORIAL = [name for name in PAGES if name.startswith(TUTORIAL)]
ELSEWHERE = ["docs/which-attention.md", *PAGES_OF_TUTORIAL]  # tests/test_which_attention.py checks each number of the first
RUN = [name for name in PAGES if name not in ELSEWHERE and "```python" in (ROOT / name).read_text(encoding="utf-8")]
LANGUAGES = {"python", "text", "sh", "{eval-rst}"}  # each is run, is what a Python block prints, is checked, or is built


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15's variables
@pytest.mark.parametrize("name", [*RUN, TUTORIAL])
def test_the_examples_run_and_print_what_the_page_says(name, tmp_path, monkeypatch, request):
    """In an empty folder with the configs. The pages of the tutorial are one session: one reads what another has written."""
    if jax.default_backend() != "cpu":
        pytest.skip("the pages show what attn.explain prints on a CPU")
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    for page in map(read, PAGES_OF_TUTORIAL if name == TUTORIAL else [name]):
        if "import keras" in page:
            request.getfixturevalue("keras")
        if "experiments.load(" in page:
            shutil.copytree(request.getfixturevalue("finished_run"), "runs/a")
        for said, printed in pages.run(page):
            assert said == printed


def test_each_block_is_of_a_kind_that_is_run_or_checked():
    for name in PAGES:
        page = read(name)
        fences = re.findall(r"(?m)^ *```(.*)$", page)
        assert set(fences[::2]) <= LANGUAGES, name
        assert len(pages.blocks(page, "python")) == page.count("```python"), f"{name}: a Python block is indented"


def command_lines(page: str) -> Iterator[str]:
    """The commands of the lab in a page's blocks, without the program."""
    for line in re.findall(r"(?m)^(?: {4,}|\$ )?python -m experiments ((?:.*\\\n)*.*)$", page):
        if "…" not in line and "=N " not in line:  # not whole
            yield line.replace("\\\n", " ").replace("$SWEEP", "")


def check_command(line: str) -> None:
    """Raises Refusal for a command, a flag, a field or a value that does not exist. Nothing is run."""

    class Read(Exception):
        pass

    parse = command_flags.parse

    def parse_only(arguments, defaults, **options):
        values, fields = parse(arguments, defaults, **options)
        if fields and options.get("fields"):
            command_flags.read_config(values.config, fields, defaults)
        raise Read

    name, *arguments = shlex.split(line, comments=True)
    if name not in commands.COMMANDS:
        raise UsageError(f"{name!r} is not a command")
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(Read):
        monkeypatch.setattr(command_flags, "parse", parse_only)
        commands.COMMANDS[name](arguments)


def test_the_commands_of_the_pages_are_accepted():
    lines = {line for name in PAGES for line in command_lines(read(name)) if not line.startswith("COMMAND")}
    assert len(lines) >= 30
    for line in sorted(lines):
        check_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "trian --workdir=runs/a",
        "train --config=configs/transformer.py:verdicts --config.model.heads=4 --workdir=runs/a",
        "train --config=configs/transformer.py:verdicts --config.epochs=0 --workdir=runs/a",
        "predict --workdir=runs/a --word=fine",
    ],
)
def test_a_command_that_would_be_refused_is_found(line):
    with pytest.raises(UsageError):
        check_command(line)


def dead_links(page: str, folder: str, files: set[str]) -> list[str]:
    """The links of a page in `folder` that lead to no file or folder of the repository, or to no heading there."""
    known = files | {parent.as_posix() for file in files for parent in Path(file).parents}
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```$|`[^`\n]*`", "", page))

    def leads_nowhere(link: str) -> bool:
        path, _, anchor = link.partition("#")
        target = os.path.normpath(Path(folder, path))
        if path and target not in known:
            return True
        return bool(anchor) and anchor not in anchors(read(target) if path else page)

    return list(filter(leads_nowhere, links))


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_of_the_repository():
    files = pages.tracked_files()
    tracked = sorted(file for file in files if file.endswith(".md"))
    dead = {page: dead_links(read(page), str(Path(page).parent), files) for page in tracked}
    assert len(tracked) >= 10
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
    assert pages.run(page) == outputs
    assert dead_links(page, "docs", FILES) == dead


@pytest.mark.parametrize(
    "example, right",
    [
        (">>> 2 * 142\n284", True),
        (">>> 2 * 142\n285", False),
        (">>> 2 * 142", False),  # an output that the page leaves out
        (">>> True\n1", False),
    ],
)
def test_what_a_line_gives_is_compared(example, right):
    [output] = pages.run(f"# A page\n\n```python\n{example}\n```\n\nMore of it.\n")
    assert output.right == right


@pytest.mark.parametrize("code", ["undefined", ">>> undefined"])
def test_an_example_that_fails_is_not_passed_over(code):
    with pytest.raises(NameError):
        pages.run(f"```python\n{code}\n```\n")


def test_the_readme_names_the_command_that_starts_it():
    assert "make quickstart" in read("README.md")
