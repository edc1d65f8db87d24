"""The rules of the house that a reader cannot see in one file."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import attn

ROOT = Path(attn.__file__).parent.parent
# What each part of `attn` may import, beside itself: all parts before it. The parts of one line do not import each other.
PARTS = [
    ["_dtypes", "_lazy", "shapes"],
    ["_validation"],
    ["_integers"],
    ["dropout", "mask_mods", "normalizers", "optimizers", "score_mods", "scores"],
    ["positions"],
    ["kernels/manual_axes", "kernels/options"],
    ["kernels/program_keys"],
    ["kernels/closures"],
    ["kernels/inputs"],
    ["kernels/differentiation", "kernels/masking"],
    ["kernels/tiles", "kernels/validation"],
    ["kernels/explicit_mesh"],
    ["kernels/chunked", "kernels/dense", "kernels/fused"],
    ["kernels/pooled"],
    ["kernels/selection"],
    ["attention", "merging", "statistics"],
    ["layers"],
    ["models"],
    ["parity", "viewer"],
]
LEVELS = {part: level for level, parts in enumerate(PARTS) for part in parts}
FORBIDDEN = {"absl", "ml_collections", "experiments", "configs", "matplotlib", "tensorflow_datasets"}


def part_of(module: str) -> str | None:
    """The part that a dotted name inside of `attn` belongs to; None for `attn` and `attn.kernels` themselves."""
    names = module.split(".")[1:]
    if names[:1] == ["kernels"]:
        names = ["/".join(names[:2])] if len(names) > 1 else []
    return names[0] if names and names[0] in LEVELS else None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", files("attn"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_in_attn_run_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    part = part_of(module)
    assert part or module in ("attn", "attn.kernels"), f"{path.name} has no place in PARTS"
    for name in imports(path):
        assert name.split(".")[0] not in FORBIDDEN
        other = part_of(name) if name.startswith("attn.") else None
        if part and other and other != part:
            assert LEVELS[other] < LEVELS[part], f"{module} imports {name}"


@pytest.mark.parametrize("folder", ["attn", "experiments", "scripts"])
def test_no_circle_of_imports(folder):
    """Not inside of functions either: `imports` finds those too."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files(folder)}
    edges = {
        name: {other for other in imports(path) if other in modules and other != name and not name.startswith(f"{other}.")}
        for name, path in modules.items()
        if path.name != "__init__.py"  # a package names its modules for type checkers, and imports them when they are used
    }
    graphlib.TopologicalSorter({name: others & edges.keys() for name, others in edges.items()}).prepare()


def test_importing_attn_imports_no_jax():
    code = "import sys, attn; print(attn.__version__, 'jax' in sys.modules); attn.attend; print('jax' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.split() == [attn.__version__, "False", "True"]


def test_every_public_name_is_there():
    assert dir(attn) == sorted(attn.__all__)
    for name in attn.__all__:
        assert getattr(attn, name)
    with pytest.raises(AttributeError, match="no attribute 'atend'"):
        attn.atend  # type: ignore[attr-defined]  # noqa: B018


def test_no_hidden_defaults():
    """Every default lives in configs/: nothing reads a config with `.get`."""
    for path in files("experiments"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "get" and isinstance(node.value, ast.Name):
                assert node.value.id != "config", path.name


def test_constraints_are_names_and_versions_alone():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        assert name
        assert version.split(";")[0].strip().replace(".", "").replace("post", "").isalnum(), line
        assert "/" not in line
