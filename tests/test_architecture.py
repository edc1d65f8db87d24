"""The rules of the house that a reader cannot see in one file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import attn

ROOT = Path(attn.__file__).parent.parent
ROOMS = ["shapes", "traced", "arguments", "places", "masks", "dropout", "normalizers", "scores", "mask_mods", "score_mods"]
ROOMS += ["positions", "hidden", "prepare", "blocks", "parts", "tiles", "online_softmax", "gradients", "reverse_mode"]
ROOMS += ["dense", "chunked", "pooled", "chunked_autodiff", "cudnn", "splash", "fused", "choice", "dispatch", "statistics"]
ROOMS += ["initializers", "optimizers", "layers", "models", "parity"]


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
    room = path.relative_to(ROOT / "attn").parts[0].removesuffix(".py")
    inside = len(path.relative_to(ROOT / "attn").parts) > 1
    earlier = ROOMS if room == "__init__" else ROOMS[: ROOMS.index(room) + inside]
    for name in imports(path):
        top, *rest = name.split(".")
        assert top not in {"absl", "ml_collections", "experiments", "configs", "matplotlib", "tensorflow_datasets"}
        if top == "attn" and rest and rest[0] in ROOMS:
            assert rest[0] in earlier, f"{path.name} imports {name}"


def test_importing_attn_imports_no_jax():
    code = "import sys, attn; print(attn.__version__, 'jax' in sys.modules); attn.attend; print('jax' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.split() == [attn.__version__, "False", "True"]


def test_every_public_name_is_there():
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
