"""`torch.nn.MultiheadAttention` and our layer with its weights: values, weights, gradients, and the same bits back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn import parity
from attn.layers.keras import MultiHeadAttention
from attn.parity.trees import flatten

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, S, N, H, KDIM, VDIM = 2, 5, 7, 3, 4, 6, 9
E = N * H
WIDE = {"kdim": KDIM, "vdim": VDIM}
ATTN_MASK = np.random.default_rng(5).random((T, S)) < 0.4  # PyTorch's: True is masked
BY_HEAD = np.random.default_rng(6).random((B, N, T, S)) < 0.4
ATTN_MASK[:, 0] = BY_HEAD[..., 0] = False  # every query has a key
PADDING = np.arange(S) >= np.array([[S - 2], [4]])
SQUARE = ~np.tri(T, dtype=bool)


def attention(torch, dtype="float32", **options):
    """In eval mode, with every parameter random: PyTorch's biases begin at 0."""
    module = torch.nn.MultiheadAttention(E, N, batch_first=True, dtype=getattr(torch, dtype), **options).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    return module


def states(module):
    return {name: x.detach().numpy().copy() for name, x in module.named_parameters()}


def same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert found[name].dtype == x.dtype, name
        assert found[name].tobytes() == x.tobytes(), name


CASES: dict[str, tuple[dict, dict, dict]] = {  # of the module, of its call, of ours
    "self": ({}, {}, {}),
    "self causal no bias": ({"bias": False}, {"attn_mask": SQUARE, "is_causal": True}, {"use_causal_mask": True}),
    "cross, one mask": ({"dropout": 0.5}, {"attn_mask": ATTN_MASK}, {"attention_mask": ~ATTN_MASK}),
    "cross kdim vdim": (WIDE, {"key_padding_mask": PADDING}, {"value_mask": ~PADDING}),
    "cross kdim vdim no bias": (
        {"bias": False, **WIDE},
        {"attn_mask": BY_HEAD.reshape(B * N, T, S), "key_padding_mask": PADDING & False},
        {"attention_mask": ~BY_HEAD},
    ),
    "cross vdim, both masks": (
        {"vdim": VDIM},
        {"attn_mask": ATTN_MASK, "key_padding_mask": PADDING},
        {"attention_mask": ~ATTN_MASK, "key_mask": ~PADDING},
    ),
}


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("case", CASES)
def test_they_agree(record_property, torch, case, dtype, tolerance):
    fields, theirs, ours = CASES[case]
    module = attention(torch, dtype, **fields)
    rng = np.random.default_rng(1)
    widths = [(T, E)] if case.startswith("self") else [(T, E), (S, module.kdim), (S, module.vdim)]
    inputs = [rng.normal(size=(B, *shape)).astype(dtype) for shape in widths]
    cotangent = rng.normal(size=(B, T, E)).astype(dtype)

    tensors = [torch.from_numpy(x).requires_grad_() for x in inputs]
    masks = {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in theirs.items()}
    output, weights = module(*in_order(tensors), need_weights=True, average_attn_weights=False, **masks)
    output.backward(torch.from_numpy(cotangent))
    gradients = parity.from_torch({name: x.grad for name, x in module.named_parameters()}, num_heads=N)[1]

    with jax.enable_x64(dtype == "float64"):
        layer, params = parity.from_torch(module)

        @jax.jit
        def everything(params, inputs, cotangent):
            def apply(params, inputs, **options):
                query, key, value = in_order(inputs)
                return layer.apply(params, query, value, key, **ours, **options)

            found, pull = jax.vjp(apply, params, inputs)
            return found, apply(params, inputs, method="attention_scores"), *pull(cotangent)

        found, scores, found_gradients, found_slopes = everything(params, inputs, cotangent)
    assert found.dtype == dtype
    values = max(close(found, output.detach(), tolerance), close(scores, weights.detach(), tolerance))
    record_property("values", float(values))
    slopes = [close(slope, tensor.grad, tolerance) for slope, tensor in zip(found_slopes, tensors, strict=True)]
    found_gradients, gradients = (flatten(x["params"]) for x in (found_gradients, gradients))
    assert found_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():  # softmax does not see the key's bias: its gradient is rounding, in both
        largest = np.abs(gradients["query/bias" if name == "key/bias" else name]).max()
        slopes.append(close(found_gradients[name], gradient, tolerance, largest))
    record_property("gradients", float(max(slopes)))


def in_order(inputs):
    """query, key and value of all three or of the one that is all of them."""
    return inputs if len(inputs) == 3 else inputs * 3


def close(found, expected, tolerance, largest=None):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    largest = np.abs(expected).max() if largest is None else largest
    difference = np.abs(np.asarray(found) - expected).max() / largest
    assert difference <= tolerance
    return difference


def test_a_query_with_no_key_is_nan_there_and_the_bias_here(torch):
    module = attention(torch)
    mask = np.zeros((T, T), bool)
    mask[2] = True
    x = np.random.default_rng(2).normal(size=(B, T, E)).astype(np.float32)
    tensor = torch.from_numpy(x)
    theirs, weights = module(tensor, tensor, tensor, attn_mask=torch.from_numpy(mask), average_attn_weights=False)
    assert theirs[:, 2].isnan().all()
    assert weights[:, :, 2].isnan().all()
    layer, params = parity.from_torch(module)
    output = layer.apply(params, x, x, attention_mask=~mask)
    scores = layer.apply(params, x, x, attention_mask=~mask, method="attention_scores")
    np.testing.assert_array_equal(scores[:, :, 2], 0)
    bias = params["params"]["attention_output"]["bias"]
    assert np.abs(bias).min() > 0
    np.testing.assert_array_equal(output[:, 2], np.broadcast_to(bias, (B, E)))
    rest = [0, 1, 3, 4]
    close(output[:, rest], theirs[:, rest].detach(), 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("fields", [{}, {"bias": False}, WIDE, {"kdim": KDIM, "bias": False}], ids=str)
def test_the_same_bits_come_back(torch, fields, dtype):
    module = attention(torch, dtype, **fields)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.view(-1)[:3] = torch.tensor([-0.0, float("inf"), 1e-45])
    _, params = parity.from_torch(module)
    assert all(x.dtype == dtype for x in jax.tree.leaves(params))
    other = torch.nn.MultiheadAttention(E, N, dtype=module.out_proj.weight.dtype, **fields)
    assert parity.to_torch(params["params"], other) is other
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[module.out_proj.weight.element_size()]
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter.view(integers), module.get_parameter(name).view(integers)), name
    same_tree(parity.from_torch(other)[1], params)


def same_tree(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True), found, expected)


def test_our_own_parameters_come_back_and_train_on(torch):
    layer = MultiHeadAttention(N, H, output_shape=E)
    params = layer.init(jax.random.key(0), jnp.zeros((T, E)), jnp.zeros((S, E)))
    module = parity.to_torch(params, attention(torch))
    same_tree(parity.from_torch(module)[1], params)
    before = module.in_proj_weight._version
    parity.to_torch(params, module)
    assert module.in_proj_weight._version > before  # autograd knows that it was written to
    assert all(x.requires_grad and x.is_leaf for x in module.parameters())


def test_the_arrays_are_copies(torch):
    module = attention(torch)
    _, params = parity.from_torch(module)
    kept = jax.tree.map(np.copy, params)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    same_tree(params, kept)


def test_dropout_and_sizes_are_carried_over(torch):
    layer, _ = parity.from_torch(attention(torch, dropout=0.25, bias=False))
    fields = layer.num_heads, layer.key_dim, layer.value_dim, layer.output_shape, layer.use_bias, layer.dropout
    assert fields == (N, H, H, E, False, 0.25)


REFUSED = [
    ({"add_bias_kv": True}, r"add_bias_kv=True \(bias_k\) is not supported"),
    ({"add_zero_attn": True}, "add_zero_attn=True is not supported"),
]


@pytest.mark.parametrize("fields, message", REFUSED, ids=str)
def test_what_ours_has_not_is_refused(torch, fields, message):
    with pytest.raises(ValueError, match=message):
        parity.from_torch(attention(torch, **fields))
    with pytest.raises(ValueError, match=message):
        parity.to_torch(parity.from_torch(attention(torch))[1], attention(torch, **fields))


def test_another_class_is_refused(torch):
    class Changed(torch.nn.MultiheadAttention):
        pass

    with pytest.raises(ValueError, match=r"module is a torch.nn.modules.linear.Linear, not a torch.nn.MultiheadAttention"):
        parity.from_torch(torch.nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"module is a .*Changed, not a torch.nn.MultiheadAttention"):
        parity.from_torch(Changed(E, N))
    with pytest.raises(ValueError, match="num_heads=2, but the module has 3"):
        parity.from_torch(attention(torch), num_heads=2)


WRONG = {
    "shape": (
        lambda p: p["value"].update(bias=np.zeros((H, N), np.float32)),
        r"value/bias has shape \(4, 3\): .* it has \(3, 4\)",
    ),
    "dtype": (lambda p: p["value"].update(bias=np.zeros((N, H))), "value/bias has dtype float64: .* it has float32"),
    "missing": (
        lambda p: p["attention_output"].pop("bias"),
        "attention_output/bias is missing: it is a parameter of the module",
    ),
    "more": (lambda p: p["value"].update(scale=np.zeros(3)), "value/scale is not a parameter of the module"),
    "integers": (lambda p: p["value"].update(bias=np.zeros((N, H), int)), "value/bias has dtype int64: weights must be float"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_nothing_is_half_written(torch, wrong):
    change, message = WRONG[wrong]
    module = attention(torch)
    before = states(module)
    params = jax.tree.map(lambda x: x + 1, parity.from_torch(module)[1])
    change(params["params"])
    with pytest.raises(ValueError, match=message):
        parity.to_torch(params, module)
    same_bits(states(module), before)
