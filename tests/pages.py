"""The Markdown pages of the repository: which there are, and their Python blocks, run as a reader would run them."""

import contextlib
import doctest
import io
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.DONT_ACCEPT_TRUE_FOR_1
_FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
_PRINTED = re.compile(r"(?ms)\n\n?```text\n(.*?)^```$")


class Block(NamedTuple):
    """A fenced block. `printed` is the block of `text` that follows it, None where there is none."""

    language: str
    code: str
    printed: str | None


class Output(NamedTuple):
    """What a page says that its code prints, and what it printed."""

    said: str
    printed: str

    @property
    def right(self) -> bool:
        return _CHECKER.check_output(self.said, self.printed, FLAGS)


_CHECKER = doctest.OutputChecker()


def blocks(page: str, language: str) -> list[Block]:
    found = []
    for fence in _FENCE.finditer(page):
        if fence[1] == language:
            printed = _PRINTED.match(page, fence.end())
            found.append(Block(language, fence[2], printed and printed[1]))
    return found


def run(page: str) -> list[Output]:
    """Runs the Python blocks of a page in order, as one session.

    A block of `>>>` lines says after each what it gives. What another block prints is the block of `text` that follows; where
    none does, it may print anything.
    """
    namespace: dict[str, Any] = {"__name__": "page"}
    outputs = []
    with np.printoptions():  # restores what a page sets
        for block in blocks(page, "python"):
            if block.code.startswith(">>> "):
                for example in doctest.DocTestParser().get_examples(block.code):
                    outputs.append(Output(example.want, _run(example.source, "single", namespace)))
            else:
                printed = _run(block.code, "exec", namespace)
                if block.printed is not None:
                    outputs.append(Output(block.printed, printed))
    return outputs


def _run(code: str, mode: str, namespace: dict[str, Any]) -> str:
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        exec(compile(code, "page", mode), namespace)
    return stdout.getvalue()


def tracked_files() -> set[str]:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: git knows which files are part of the repository")
    return set(listed.stdout.splitlines())
