"""d2l's attention layers with their weights in ours, against the book's formulas in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import parity
from attn.layers import d2l

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, S, N, HIDDENS, D, DK, DV = 2, 5, 7, 3, 12, 6, 4, 9
LENGTHS = np.array([3, 6])
RNG = np.random.default_rng(0)
QUERIES, KEYS, VALUES = (RNG.normal(size=(B, *shape)) for shape in ((T, D), (S, DK), (S, DV)))


def tree(kind, bias=False):
    """Flax's parameters of the book's layer, random."""
    rng = np.random.default_rng(1)
    last = ("W_o", HIDDENS, HIDDENS) if kind == "MultiHeadAttention" else ("w_v", HIDDENS, 1)
    layers = [("W_q", D, HIDDENS), ("W_k", DK, HIDDENS), ("W_v", DV, HIDDENS), last]
    layers = [layer for layer in layers if kind == "MultiHeadAttention" or layer[0] != "W_v"]
    params = {name: {"kernel": rng.normal(size=(n, m)) / 2} for name, n, m in layers}
    if bias:
        for name, _, m in layers:
            params[name]["bias"] = rng.normal(size=m)
    return params


def state_dict(params):
    """The same in PyTorch's form."""
    kernels = {f"{name}.weight": layer["kernel"].T for name, layer in params.items()}
    return kernels | {f"{name}.bias": layer["bias"] for name, layer in params.items() if "bias" in layer}


def book(params):
    """softmax over the valid keys alone, head by head."""
    x = {}
    for name, given in (("W_q", QUERIES), ("W_k", KEYS), ("W_v", VALUES)):
        x[name] = given @ params[name]["kernel"] + params[name].get("bias", 0) if name in params else given
    heads = []
    for n in range(N if "W_o" in params else 1):
        of_head = slice(n * HIDDENS // N, (n + 1) * HIDDENS // N) if "W_o" in params else slice(None)
        q, k, v = x["W_q"][..., of_head], x["W_k"][..., of_head], x["W_v"][..., of_head]
        if "w_v" in params:
            scores = np.tanh(q[:, :, None] + k[:, None]) @ params["w_v"]["kernel"][:, 0]
        else:
            scores = np.einsum("bth,bsh->bts", q, k) / np.sqrt(q.shape[-1])
        powers = np.exp(scores) * (np.arange(S) < LENGTHS[:, None])[:, None]
        heads.append(powers / powers.sum(-1, keepdims=True) @ v)
    output = np.concatenate(heads, axis=-1)
    return output @ params["W_o"]["kernel"] + params["W_o"].get("bias", 0) if "W_o" in params else output


CASES = [("MultiHeadAttention", False, N), ("MultiHeadAttention", True, N), ("AdditiveAttention", False, None)]
FORMS = {"flax": lambda params: {"params": params}, "inner": lambda params: params, "torch": state_dict}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind, bias, num_heads", CASES)
def test_weights_give_the_books_output(kind, bias, num_heads, form):
    params = tree(kind, bias)
    with jax.enable_x64(True):
        layer, ours = parity.from_d2l(FORMS[form](params), num_heads=num_heads)
        assert isinstance(layer, getattr(d2l, kind))
        output = np.asarray(jax.jit(layer.apply)(ours, QUERIES, KEYS, VALUES, LENGTHS))
        shapes = jax.eval_shape(layer.init, jax.random.key(0), QUERIES, KEYS, VALUES)
    expected = book(params)
    assert np.abs(output - expected).max() <= 1e-12 * np.abs(expected).max()
    assert jax.tree.map(np.shape, ours) == jax.tree.map(jnp.shape, shapes)
    for found, given in zip(jax.tree.leaves(ours["params"]), jax.tree.leaves(params), strict=True):
        assert found.tobytes() == given.tobytes()
        assert not np.shares_memory(found, given)


def test_dot_product_attention_has_no_weights():
    layer, params = parity.from_d2l({})
    assert isinstance(layer, d2l.DotProductAttention)
    assert params == {"params": {}}
    queries, keys = QUERIES[..., :DK].astype(np.float32), KEYS.astype(np.float32)
    scores = np.exp(np.einsum("btd,bsd->bts", QUERIES[..., :DK], KEYS) / np.sqrt(DK))
    expected = scores / scores.sum(-1, keepdims=True) @ VALUES
    np.testing.assert_allclose(layer.apply(params, queries, keys, VALUES.astype(np.float32)), expected, atol=1e-5)


BAD = [
    (tree("MultiHeadAttention"), None, "num_heads=None with weights of MultiHeadAttention: it must be given"),
    (tree("AdditiveAttention"), 3, "num_heads=3 with weights of AdditiveAttention: .* only for it"),
    (tree("MultiHeadAttention"), 5, "num_hiddens=12 is not divisible by num_heads=5"),
    (tree("AdditiveAttention", bias=True), None, "W_q/bias is not a parameter of d2l's AdditiveAttention"),
    (
        tree("MultiHeadAttention") | {"W_k": {"kernel": np.ones((DK, 8))}},
        3,
        r"W_k/kernel has shape \(4, 8\): .* it has \(4, 12\)",
    ),
    ({"W_q.weight": np.ones((HIDDENS, D))}, 3, "W_k/kernel is missing: it is a parameter of d2l's MultiHeadAttention"),
    (object(), None, "module is a object: it must be d2l's MultiHeadAttention, AdditiveAttention, DotProductAttention"),
]


@pytest.mark.parametrize("module, num_heads, message", BAD, ids=[message[:30] for *_, message in BAD])
def test_what_is_not_d2ls_is_refused(module, num_heads, message):
    with pytest.raises(ValueError, match=message):
        parity.from_d2l(module, num_heads=num_heads)


def in_torch(torch, kind, **attributes):
    module = type(kind, (torch.nn.Module,), {})()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def test_modules_of_pytorch(torch):
    dot = in_torch(torch, "DotProductAttention", dropout=torch.nn.Dropout(0.25))
    layer, params = parity.from_d2l(dot)
    assert (layer, params) == (d2l.DotProductAttention(0.25), {"params": {}})
    given = tree("MultiHeadAttention", bias=True)
    linears = {name: torch.nn.Linear(*x["kernel"].shape, dtype=torch.float64) for name, x in given.items()}
    module = in_torch(torch, "MultiHeadAttention", num_heads=N, attention=dot, **linears)
    module.load_state_dict({name: torch.tensor(x) for name, x in state_dict(given).items()})
    layer, params = parity.from_d2l(module)
    assert layer == d2l.MultiHeadAttention(HIDDENS, N, 0.25, bias=True)
    jax.tree.map(np.testing.assert_array_equal, params["params"], given)
    with pytest.raises(ValueError, match="num_heads=4, but the module has 3"):
        parity.from_d2l(module, num_heads=4)
    module.attention = in_torch(torch, "AdditiveAttention", dropout=torch.nn.Dropout(0.25))
    with pytest.raises(ValueError, match="attention is a AdditiveAttention: in d2l's MultiHeadAttention it is a DotProduct"):
        parity.from_d2l(module)
    with pytest.raises(ValueError, match="module is a Linear: it must be d2l's"):
        parity.from_d2l(module.W_q)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_lazy_layers_are_called_first(torch):
    linears = {name: torch.nn.LazyLinear(size, bias=False) for name, size in (("W_q", HIDDENS), ("W_k", HIDDENS), ("w_v", 1))}
    module = in_torch(torch, "AdditiveAttention", dropout=torch.nn.Dropout(0.25), **linears)
    with pytest.raises(ValueError, match=r"W_q.weight has no values yet: call its module once first"):
        parity.from_d2l(module)
    queries, keys = torch.tensor(QUERIES, dtype=torch.float32), torch.tensor(KEYS, dtype=torch.float32)
    expected = module.w_v(torch.tanh(module.W_q(queries)[:, :, None] + module.W_k(keys)[:, None]))[..., 0].softmax(-1)
    layer, params = parity.from_d2l(module)
    assert layer == d2l.AdditiveAttention(HIDDENS, 0.25)
    arrays = (x.astype(np.float32) for x in (QUERIES, KEYS, VALUES))
    weights = layer.apply(params, *arrays, method="attention_weights")
    np.testing.assert_allclose(weights, expected.detach().numpy(), atol=1e-6)
