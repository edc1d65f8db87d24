"""The vendors' kernels where there is neither GPU nor TPU: splash attention interpreted and lowered, cuDNN's in JAX's own
operations, and what each refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn.kernels.fused import attention as fused
from attn.kernels.fused import cudnn, splash
from attn.kernels.options import Options
from attn.kernels.validation import validate

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, S, N, K, H, V = 2, 128, 256, 4, 2, 64, 32
SEGMENTS = np.sort(np.random.default_rng(0).integers(0, 4, (B, S)), axis=1)
ONE_PACKING = SEGMENTS[0]


def arrays(queries=T, head_dim=H, value_dim=V, dtype=jnp.bfloat16):
    shapes = (B, queries, N, head_dim), (B, S, K, head_dim), (B, S, K, value_dim), (B, queries, N, value_dim)
    return [jnp.asarray(np.random.default_rng(i).normal(size=shape), dtype) for i, shape in enumerate(shapes)]


def attend(vendor, query, key, value, otherwise=None, **options):
    chosen = Options(**options)
    arguments, _ = validate(query, key, value, chosen)
    instead = otherwise or functools.partial(attn.attend, query, key, value, **options)
    return fused.attention(query, key, value, chosen, arguments, instead, vendor)


@functools.partial(jax.jit, static_argnums=0)
def output_and_gradients(function, query, key, value, gradient):
    output, pull = jax.vjp(function, query, key, value)
    return output, *pull(gradient.astype(output.dtype))


interpreted = functools.partial(splash.attention, interpret=True)
MASKS = {
    "plain": (T, {}),
    "dot, scaled": (T, {"score": "dot", "scale": 0.1}),
    "bottom right": (T, {"causal": "bottom_right"}),
    "window": (S, {"window": (40, 150)}),
    "packed": (S, {"query_segments": SEGMENTS, "key_segments": SEGMENTS, "causal": True}),
    "one packing for all": (S, {"query_segments": ONE_PACKING, "key_segments": ONE_PACKING}),
    "sink": (T, {"sink": np.linspace(-1, 4, N, dtype=np.float32)}),
    "softmax1": (T, {"normalizer": "softmax1"}),
}


def error(actual, exact):
    return np.sqrt(np.mean(np.square(np.asarray(actual, np.float64) - exact)))


@pytest.mark.parametrize("name, head_dim", [*((name, 64) for name in MASKS), ("plain", 128), ("window", 128)])
def test_splash_attention_errs_as_the_dense_path_in_bfloat16(name, head_dim):
    """Its gradients at most twice as much, being rounded before and after they are scaled. The truth is the dense path in
    float64, which the oracle holds. With the query rounded where it is scaled by 1/√128 the outputs err 1.4 times as much.
    """
    queries, options = MASKS[name]
    inputs = arrays(queries, head_dim)
    assert fused.unsupported(*inputs[:3], Options(**options), "tpu") is None
    dense = functools.partial(attn.attend, implementation="dense", **options)
    with jax.enable_x64(True):
        truth = [np.asarray(x) for x in output_and_gradients(dense, *(x.astype(jnp.float64) for x in inputs))]
    plain = output_and_gradients(dense, *inputs)
    ours = output_and_gradients(functools.partial(attend, interpreted, **options), *inputs)
    for limit, result, reference, exact in zip((1.1, 2, 2, 2), ours, plain, truth, strict=True):
        assert result.dtype == jnp.bfloat16 and result.shape == exact.shape
        assert 0 < error(result, exact) <= limit * error(reference, exact)


def test_a_nan_is_left_to_the_other_kernel_where_something_is_masked():
    query, key, value, _ = arrays(S)
    poisoned = key.at[:, -1].set(jnp.nan)
    masked = attend(interpreted, query, poisoned, value, otherwise=lambda: jnp.full_like(query[..., :V], 7), causal=True)
    assert np.all(masked == 7)
    seen = attend(interpreted, query, poisoned, value, otherwise=lambda: jnp.full_like(query[..., :V], 7))
    assert np.all(np.isnan(seen))


@pytest.mark.parametrize("name", MASKS)
def test_splash_attention_lowers_for_a_tpu(name):
    """Mosaic checks the layout of every block of the forward and backward kernels; nothing runs."""
    queries, options = MASKS[name]
    step = jax.jit(functools.partial(output_and_gradients, functools.partial(attend, splash.attention, **options)))
    module = jax.export.export(step, platforms=["tpu"])(*arrays(queries)).mlir_module()
    assert module.count("tpu_custom_call") >= 3  # forward, backward by query, backward by key


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"score": "dot", "scale": 0.1}], ids=str)
def test_cudnn_is_asked_for_what_the_dense_path_computes(options, monkeypatch):
    """All but cuDNN itself: JAX's own operations stand in for it."""
    asked, original = [], jax.nn.dot_product_attention

    def stand_in(*inputs, implementation, **arguments):
        asked.append(implementation)
        return original(*inputs, implementation="xla", **arguments)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    query, key, value, _ = arrays(S, value_dim=H)
    assert fused.unsupported(query, key, value, Options(**options), "gpu") is None
    output = attend(cudnn.attention, query, key, value, **options)
    expected = attn.attend(query, key, value, implementation="dense", **options)
    np.testing.assert_allclose(output.astype(jnp.float32), expected.astype(jnp.float32), atol=0.03)
    assert asked == ["cudnn"]


REFUSALS = [
    ("gpu", {"window": (3, 0)}, {}, "does not honour window"),
    ("gpu", {"causal": "bottom_right"}, {}, "does not honour causal='bottom_right' with T=128 and S=256"),
    ("gpu", {"causal": "bottom_right", "key_lengths": np.full(2, S)}, {"queries": S}, "does not honour key_lengths"),
    ("tpu", {"causal": "bottom_right", "query_lengths": np.full(2, S)}, {"queries": S}, "does not honour query_lengths"),
    ("gpu", {"sink": np.ones(N, np.float32)}, {}, "does not honour sink"),
    ("gpu", {"normalizer": "softmax1"}, {}, "does not honour normalizer='softmax1'"),
    ("gpu", {}, {}, "needs equal head dims, a multiple of 8 up to 128: these are 64 and 32"),
    ("gpu", {}, {"dtype": jnp.float32}, "needs query, key and value of one dtype, bfloat16 or float16: these are float32"),
    ("tpu", {}, {"dtype": jnp.float16}, "needs query, key and value of one dtype, bfloat16: these are float16"),
    ("tpu", {"scale": jnp.float32(0.5)}, {}, "needs a scale that is a Python number"),
    ("tpu", {"score": "cosine"}, {}, "does not honour score='cosine'"),
    ("tpu", {"dropout_rate": 0.1}, {}, "does not honour dropout_rate=0.1: its random bits are not those of attn.dropout"),
    ("tpu", {}, {"queries": 130}, "needs lengths that are multiples of 128: T is 130 and S is 256"),
    ("tpu", {"causal": "top_left"}, {"queries": 384}, "may not leave a query without a key: T is 384 and S is 256"),
    (
        "tpu",
        {"query_segments": SEGMENTS, "key_segments": SEGMENTS.copy()},
        {"queries": S},
        "needs one and the same array for query_segments and key_segments",
    ),
    ("rocm", {}, {}, "needs an NVIDIA GPU or a TPU: this is rocm"),
]


@pytest.mark.parametrize("platform, options, inputs, message", REFUSALS, ids=[message for *_, message in REFUSALS])
def test_what_a_kernel_cannot_honour_is_named(platform, options, inputs, message):
    assert fused.unsupported(*arrays(**inputs)[:3], Options(**options), platform) == message
