"""The state_dict of a `torch.nn.MultiheadAttention` as our layer's parameters, number by number and without PyTorch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attn import parity

ROOT = Path(__file__).parent.parent
N, H, KDIM, VDIM = 3, 4, 6, 9
E = N * H


def state_dict(separate=False, bias=True):
    """Every entry another number, so that each can be followed. It takes no PyTorch."""
    shapes = {"q_proj_weight": (E, E), "k_proj_weight": (E, KDIM), "v_proj_weight": (E, VDIM)}
    shapes = (shapes if separate else {"in_proj_weight": (3 * E, E)}) | {"out_proj.weight": (E, E)}
    shapes |= {"in_proj_bias": (3 * E,), "out_proj.bias": (E,)} if bias else {}
    return {name: 1000.0 * i + np.arange(np.prod(shape)).reshape(shape) for i, (name, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize("separate", [False, True])
def test_each_number_has_its_place(separate):
    weights = state_dict(separate)
    params = parity.from_torch(weights, num_heads=N)[1]["params"]
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    for i, name in enumerate(("query", "key", "value")):
        rows = weights[names[i]] if separate else weights["in_proj_weight"][i * E : (i + 1) * E]
        for n, h in np.ndindex(N, H):
            np.testing.assert_array_equal(params[name]["kernel"][:, n, h], rows[n * H + h])
            assert params[name]["bias"][n, h] == weights["in_proj_bias"][i * E + n * H + h]
    for n, h in np.ndindex(N, H):
        np.testing.assert_array_equal(params["attention_output"]["kernel"][n, h], weights["out_proj.weight"][:, n * H + h])
    np.testing.assert_array_equal(params["attention_output"]["bias"], weights["out_proj.bias"])


@pytest.mark.parametrize(
    "change, num_heads, message",
    [
        (lambda w: w, None, "num_heads=None: it must be given with a state_dict"),
        (lambda w: w, 5, "embed_dim=12 is not divisible by num_heads=5"),
        (lambda w: w | {"in_proj_weight": np.zeros((E, E))}, N, r"in_proj_weight has shape \(12, 12\): .* it has \(36, 12\)"),
        (lambda w: w | {"bias_k": np.zeros((1, 1, E))}, N, r"add_bias_kv=True \(bias_k\)"),
        (lambda w: w | {"more": np.zeros(1)}, N, "more is not a parameter of torch.nn.MultiheadAttention"),
        (lambda w: {"out_proj.weight": w["out_proj.weight"]}, N, "in_proj_weight is missing"),
        (lambda w: {"in_proj_weight": w["in_proj_weight"]}, N, "out_proj.weight is missing"),
        (lambda w: w | {"in_proj_bias": [0.0] * 36}, N, "in_proj_bias is a list, not an array"),
    ],
)
def test_a_state_dict_is_checked(change, num_heads, message):
    with pytest.raises(ValueError, match=message):
        parity.from_torch(change(state_dict()), num_heads=num_heads)


def test_neither_pytorch_nor_keras_is_imported_for_a_state_dict():
    code = (
        "import sys, attn.parity; print('jax' in sys.modules)\n"
        "import test_parity_state_dict as t; t.parity.from_torch(t.state_dict(), num_heads=3)\n"
        "print(sorted({'torch', 'keras', 'tensorflow', 'safetensors'} & sys.modules.keys()))"
    )
    path = [str(ROOT / "tests"), str(ROOT)]
    code = f"import sys; sys.path[:0] = {path}\n{code}"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split("\n")[:2] == ["False", "[]"]
    with pytest.raises(AttributeError, match="has no attribute 'from_tf'"):
        parity.from_tf  # type: ignore[attr-defined]  # noqa: B018
