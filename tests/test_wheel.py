"""What a wheel needs to build with all of its modules and to import in an environment with its dependencies alone.

CONTRIBUTING.md has the command that builds and installs one, which takes minutes.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attn

ROOT = Path(attn.__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted((ROOT / "attn").rglob("*.py"))


def imported_at_once(nodes: list[ast.stmt]) -> Iterator[str]:
    """The top-level packages that the statements import when they run, outside of functions and of `if TYPE_CHECKING`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from imported_at_once(node.body + node.orelse)


def test_every_folder_of_attn_is_a_package():
    """setuptools leaves out a folder without `__init__.py`, and says nothing."""
    assert PYPROJECT["tool"]["setuptools"]["packages"]["find"] == {"include": ["attn*"]}
    assert {file.parent for file in FILES} == {file.parent for file in FILES if file.name == "__init__.py"}


def test_attn_imports_its_declared_dependencies_alone():
    declared = {re.split(r"[<>=\[ ]", requirement)[0] for requirement in PYPROJECT["project"]["dependencies"]}
    allowed = declared | {"attn", "numpy"} | sys.stdlib_module_names  # JAX depends on NumPy
    found = {name: file.name for file in FILES for name in imported_at_once(ast.parse(file.read_text()).body)}
    assert found.keys() >= declared, "the walk sees imports"
    assert found.keys() <= allowed, {name: found[name] for name in found.keys() - allowed}
