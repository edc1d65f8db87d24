"""`attn.attend` on other libraries' own ground: JAX's and Flax's attention here, PyTorch's in the extra `peers`."""

import importlib
import warnings

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import COTANGENT, KEY, QUERY, VALUE, B, N, S, T
from flax import linen as nn

import attn
from attn import score_mods

IMPLEMENTATIONS = ("dense", "chunked")


def output_and_gradients(attention, value):
    """Output and the gradients of query, key and value."""

    @jax.jit
    def both(*inputs):
        output, pull = jax.vjp(attention, *inputs)
        return output, *pull(jnp.asarray(COTANGENT[..., : value.shape[-1]]))

    return [np.asarray(x) for x in both(QUERY, KEY, value)]


def ours(implementation, value=VALUE, **options):
    return output_and_gradients(lambda *x: attn.attend(*x, implementation=implementation, **options), value)


def agree(found, expected):
    for actual, wanted in zip(found, expected, strict=True):
        assert np.abs(actual - wanted).max() <= 2e-6 * np.abs(wanted).max()


JAX_NN = [
    ({}, {}),
    ({"scale": 0.3}, {"scale": 0.3}),
    ({"bias": cases.random(1, N, T, S)}, {"bias": cases.random(1, N, T, S)}),
    ({"mask": np.arange(S)[None, None, None] < 4}, {"mask": np.arange(S)[None, None, None] < 4}),
    ({"key_value_seq_lengths": np.array([3, 6])}, {"key_lengths": np.array([3, 6])}),
    ({"is_causal": True}, {"causal": "top_left"}),
    ({"is_causal": True, "local_window_size": (2, 0)}, {"causal": "top_left", "window": (2, 0)}),
]


@pytest.mark.parametrize("theirs, options", JAX_NN, ids=[" ".join(theirs) or "plain" for theirs, _ in JAX_NN])
def test_jax_nn(theirs, options):
    theirs = {name: jnp.asarray(x) if isinstance(x, np.ndarray) else x for name, x in theirs.items()}
    value = VALUE[..., : cases.H]  # its values are as wide as its keys
    expected = output_and_gradients(lambda *x: jax.nn.dot_product_attention(*x, **theirs), value)
    for implementation in IMPLEMENTATIONS:
        agree(ours(implementation, value, **options), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_flax(implementation):
    """Flax repeats no heads, and wants equal sizes but for the lengths."""
    repeated = [np.repeat(x, N // cases.K, axis=2) for x in (KEY, VALUE)]
    mask = np.arange(S)[None, None, None] < 5
    expected = nn.dot_product_attention(jnp.asarray(QUERY), *map(jnp.asarray, repeated), mask=jnp.asarray(mask))
    agree([attn.attend(QUERY, KEY, VALUE, mask=mask, implementation=implementation)], [np.asarray(expected)])


def in_torch(torch, attention, gradients=True):
    """Output and gradients of a PyTorch attention over `[B, N, T, H]`, as ours."""
    tensors = [torch.from_numpy(x.transpose(0, 2, 1, 3).copy()).requires_grad_(gradients) for x in (QUERY, KEY, VALUE)]
    output = attention(*tensors)
    if gradients:
        output.backward(torch.from_numpy(COTANGENT.transpose(0, 2, 1, 3).copy()))
    return [x.detach().numpy().transpose(0, 2, 1, 3) for x in (output, *(t.grad for t in tensors if t.grad is not None))]


SDPA = {
    "plain": ({}, {}),
    "scale": ({"scale": 0.3}, {"scale": 0.3}),
    "causal": ({"is_causal": True}, {"causal": "top_left"}),
    "mask": ({"attn_mask": np.arange(S)[None, None, None] < 4}, {"mask": np.arange(S)[None, None, None] < 4}),
    "bias": ({"attn_mask": cases.random(B, N, T, S)}, {"bias": cases.random(B, N, T, S)}),
}


@pytest.mark.parametrize("name", SDPA)
def test_torch_scaled_dot_product_attention(torch, name):
    theirs, options = SDPA[name]
    theirs = {k: torch.from_numpy(x.copy()) if isinstance(x, np.ndarray) else x for k, x in theirs.items()}
    attention = torch.nn.functional.scaled_dot_product_attention
    expected = in_torch(torch, lambda *x: attention(*x, enable_gqa=True, **theirs))
    for implementation in IMPLEMENTATIONS:
        agree(ours(implementation, **options), expected)


def test_torch_flex_attention_with_the_same_score_mod(torch):
    """Values alone: on a CPU it has no backward pass."""
    flex_attention = importlib.import_module("torch.nn.attention.flex_attention").flex_attention
    slopes = torch.from_numpy(score_mods.alibi_slopes(N).astype(np.float32))

    def alibi(score, batch, head, query, key):
        return score - slopes[head] * (query - key).abs()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        (expected,) = in_torch(torch, lambda *x: flex_attention(*x, score_mod=alibi, enable_gqa=True), gradients=False)
    for implementation in IMPLEMENTATIONS:
        agree([attn.attend(QUERY, KEY, VALUE, score_mod=score_mods.alibi(N), implementation=implementation)], [expected])
