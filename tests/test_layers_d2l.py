"""The d2l layers against float64 NumPy, PyTorch and what the book prints and claims (chapter 11)."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from attn.layers import d2l, d2l_transformer

pytestmark = pytest.mark.usefixtures("fast_compilation")
B, T, S, N, D, E, V, HIDDENS = 2, 5, 7, 3, 4, 8, 6, 12
RNG = jax.random.key(0)
VALID = {
    "none": None,
    "of examples": np.array([0, 4]),
    "of queries": np.array([[1, 0, 7, 3, 2], [6, 5, 4, 0, 9]]),  # 9 is past the last key
}
LAYERS = {
    "dot": d2l.DotProductAttention(0.1),
    "additive": d2l.AdditiveAttention(HIDDENS, 0.1),
    "multi-head": d2l.MultiHeadAttention(HIDDENS, N, 0.1, bias=True),
}


def inputs(name: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in ((B, T, D if name == "dot" else E), (B, S, D), (B, S, V))]


def randomised(params: Any, seed: int = 1) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)


def initialised(layer: Any, *args: Any) -> Any:
    """Parameters of the layer's shapes, all different: the zeros and ones of the initialisers too."""
    return randomised(jax.eval_shape(layer.init, RNG, *map(jnp.asarray, args)).get("params", {}))


# The truth: NumPy that is right for complex numbers too, whose imaginary part carries a derivative.


def true_weights(scores: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """`[B, Q, K]`, one row after the other; a row of length 0 stays 0."""
    weights = np.zeros_like(scores)
    for b, t in np.ndindex(scores.shape[:2]):
        length = scores.shape[2] if valid is None else valid[b] if valid.ndim == 1 else valid[b, t]
        row = np.exp(scores[b, t, :length])
        weights[b, t, :length] = row / row.sum()
    return weights


def dense(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return x @ p["kernel"] + p.get("bias", 0)


def truth(name: str, p: Any, queries: np.ndarray, keys: np.ndarray, values: np.ndarray, valid: np.ndarray | None):
    """The output, and the weights in the book's order."""
    if name == "multi-head":
        q, k, v = dense(p["W_q"], queries), dense(p["W_k"], keys), dense(p["W_v"], values)
        heads, width = [], q.shape[-1] // N
        for n in range(N):
            part = slice(n * width, (n + 1) * width)
            heads.append(truth("dot", {}, q[..., part], k[..., part], v[..., part], valid))
        weights = [heads[n][1][b] for b in range(len(q)) for n in range(N)]
        return dense(p["W_o"], np.concatenate([output for output, _ in heads], axis=-1)), np.stack(weights)
    if name == "dot":
        scores = np.einsum("btd,bsd->bts", queries, keys) / math.sqrt(queries.shape[-1])
    else:
        hidden = np.tanh(dense(p["W_q"], queries)[:, :, None] + dense(p["W_k"], keys)[:, None])
        scores = dense(p["w_v"], hidden)[..., 0]
    weights = true_weights(scores, valid)
    return np.einsum("bts,bsv->btv", weights, values), weights


def slopes(function: Any, tree: Any) -> Any:
    """The derivative of a scalar function at each entry of each array, by complex steps."""
    leaves, structure = jax.tree.flatten(tree)
    found = [np.zeros(leaf.shape) for leaf in leaves]
    for slope, i in zip(found, range(len(leaves)), strict=True):
        for index in np.ndindex(slope.shape):
            moved = [leaf.astype(np.complex128) if j == i else leaf for j, leaf in enumerate(leaves)]
            moved[i][index] += 1e-30j
            slope[index] = np.imag(function(structure.unflatten(moved))) / 1e-30
    return structure.unflatten(found)


def apply(layer: Any, *args: Any, **options: Any) -> Any:
    """`layer.apply` as one compiled program; operation by operation, each would be compiled alone."""
    return jax.jit(lambda *args: layer.apply(*args, **options))(*args)


def agree(ours: Any, theirs: Any, tolerance: float) -> float:
    """To `tolerance` of the largest entry, or of 1: the gradient of the keys' bias is 0. The largest difference so."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    differences = []
    for our, their in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert our.shape == their.shape
        differences.append(np.abs(np.asarray(our) - their).max() / max(np.abs(their).max(), 1))
    assert max(differences) <= tolerance
    return float(max(differences))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("valid", VALID.values(), ids=VALID)
def test_layers_are_their_formulas(name, valid):
    layer, arrays = LAYERS[name], inputs(name)
    params = initialised(layer, *arrays)
    expected, weights = truth(name, params, *arrays, valid)
    cotangent = np.random.default_rng(2).normal(size=expected.shape)

    @jax.jit
    def everything(arguments, valid):
        def loss(arguments):
            output = layer.apply({"params": arguments[0]}, *arguments[1:], valid)
            return (output * cotangent).sum(), output

        (_, output), ours = jax.value_and_grad(loss, has_aux=True)(arguments)
        return output, ours, layer.apply({"params": arguments[0]}, *arguments[1:], valid, method="attention_weights")

    gradients = slopes(lambda x: (truth(name, *x, valid)[0] * cotangent).sum(), (params, *arrays))
    with jax.enable_x64(True):
        output, ours, looked_at = everything((params, *arrays), valid)
        agree((output, ours), (expected, gradients), 1e-12)
        agree(looked_at, weights, 1e-12)
    assert valid is None or not np.allclose(expected, truth(name, params, *arrays, None)[0], atol=1e-2)


def test_masked_softmax_as_the_book_calls_it():
    X = jax.random.uniform(RNG, (2, 2, 4))
    for valid, lengths in (([2, 3], [[2, 2], [3, 3]]), ([[1, 3], [2, 4]], [[1, 3], [2, 4]])):
        weights = np.asarray(d2l.masked_softmax(X, jnp.array(valid)))
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(weights, true_weights(np.float64(X), np.array(lengths)), atol=1e-7)
        for (b, q), length in np.ndenumerate(lengths):
            assert (weights[b, q, length:] == 0).all()
            assert (weights[b, q, :length] > 0).all()
    np.testing.assert_allclose(d2l.masked_softmax(X, None), true_weights(np.float64(X), None), atol=1e-7)


def test_a_row_of_length_0_is_uniform_in_masked_softmax_and_0_in_the_layers():
    queries, keys, values = (jnp.asarray(x, jnp.float32) for x in inputs("dot"))
    valid = jnp.array([[2, 0, 1, 7, 3], [1, 1, 1, 1, 1]])
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):  # −1e6 is −Inf in float16
        weights = d2l.masked_softmax((queries @ keys.mT).astype(dtype), valid)
        assert weights.dtype == dtype
        np.testing.assert_array_equal(weights[0, 1], jnp.full(S, 1 / S, dtype))
    output = apply(LAYERS["dot"], {}, queries, keys, values, valid)
    weights = apply(LAYERS["dot"], {}, queries, keys, values, valid, method="attention_weights")
    for of_layer in (output, weights):
        zero = (np.asarray(of_layer) == 0).all(-1)
        assert zero[0, 1]
        assert zero.sum() == 1


@pytest.mark.parametrize("layer, query_size", [(d2l.DotProductAttention(0.5), 2), (d2l.AdditiveAttention(8, 0.1), 20)])
def test_the_books_equal_keys_give_means_of_values(layer, query_size):
    """Keys that are all equal weigh the first 2 and the first 6 values equally, whatever the parameters are."""
    queries = jax.random.normal(RNG, (2, 1, query_size))
    keys = jnp.ones((2, 10, 2))
    values = jnp.tile(jnp.arange(40.0).reshape(1, 10, 4), (2, 1, 1))
    valid = jnp.array([2, 6])
    output, params = jax.jit(layer.init_with_output)(jax.random.key(1), queries, keys, values, valid)
    np.testing.assert_allclose(output, [[[2, 3, 4, 5]], [[10, 11, 12, 13]]], rtol=1e-6)
    weights = np.asarray(apply(layer, params, queries, keys, values, valid, method="attention_weights"))
    np.testing.assert_allclose(weights[:, 0], [[1 / 2] * 2 + [0] * 8, [1 / 6] * 6 + [0] * 4], rtol=1e-6)


def test_the_books_shapes():
    X, Y, valid = jnp.ones((2, 4, 100)), jnp.ones((2, 6, 100)), jnp.array([3, 2])
    layer = d2l.MultiHeadAttention(100, 5, 0.5)
    output, params = jax.eval_shape(layer.init_with_output, RNG, X, Y, Y, valid)
    assert output.shape == (2, 4, 100)
    weights = jax.eval_shape(lambda p: layer.apply(p, X, Y, Y, valid, method="attention_weights"), params)
    assert weights.shape == (10, 4, 6)
    encoder = d2l_transformer.TransformerEncoder(200, 24, 48, 8, 2, 0.5)
    tokens = jnp.ones((2, 100), int)
    assert jax.eval_shape(encoder.init_with_output, RNG, tokens, valid)[0].shape == (2, 100, 24)
    ffn = d2l_transformer.PositionWiseFFN(4, 8)
    rows = ffn.init_with_output(RNG, jnp.ones((2, 3, 4)))[0]
    assert rows.shape == (2, 3, 8)
    np.testing.assert_array_equal(rows[0, 0], rows[1, 2])  # equal positions stay equal


def test_parameters_have_the_books_names_and_sizes():
    queries, keys, values = map(jnp.asarray, inputs("additive"))
    square = {"kernel": (HIDDENS, HIDDENS), "bias": (HIDDENS,)}

    def shapes(layer: Any, *args: Any) -> Any:
        return jax.tree.map(jnp.shape, jax.eval_shape(layer.init, RNG, *args))

    assert shapes(d2l.DotProductAttention(0.1), keys, keys, values) == {}
    assert shapes(d2l.AdditiveAttention(HIDDENS, 0.1), queries, keys, values)["params"] == {
        "W_q": {"kernel": (E, HIDDENS)},
        "W_k": {"kernel": (D, HIDDENS)},
        "w_v": {"kernel": (HIDDENS, 1)},
    }
    block = d2l_transformer.TransformerEncoderBlock(HIDDENS, 5, N, 0.1, use_bias=True)
    norm = {"LayerNorm_0": {"scale": (HIDDENS,), "bias": (HIDDENS,)}}
    of_block = {
        "attention": dict.fromkeys(("W_q", "W_k", "W_v", "W_o"), square),
        "ffn": {"dense1": {"kernel": (HIDDENS, 5), "bias": (5,)}, "dense2": {"kernel": (5, HIDDENS), "bias": (HIDDENS,)}},
        "addnorm1": norm,
        "addnorm2": norm,
    }
    assert shapes(block, jnp.ones((B, T, HIDDENS)))["params"] == of_block
    encoder = d2l_transformer.TransformerEncoder(9, HIDDENS, 5, N, 2, 0.1, use_bias=True)
    of_encoder = {"embedding": {"embedding": (9, HIDDENS)}, "blks_0": of_block, "blks_1": of_block}
    assert shapes(encoder, jnp.ones((B, T), int))["params"] == of_encoder
    X = jnp.ones((2, 4, 100))
    for bias, count in ((False, 40_000), (True, 40_400)):
        params = shapes(d2l.MultiHeadAttention(100, 5, 0.5, bias), X, X, X)
        assert sum(map(math.prod, jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, tuple)))) == count


def test_w_v_starts_as_the_kernel_of_a_dense_does():
    column = d2l._Column(10_000).init_with_output(RNG)[0]
    assert np.std(column) == pytest.approx(0.01, rel=0.05)  # 1/√fan_in


def test_the_older_signature_is_the_same_layer():
    arrays = [jnp.asarray(x, jnp.float32) for x in inputs("multi-head")]
    older = d2l.MultiHeadAttention.of_sizes(D, E, V, HIDDENS, N, 0.1, True)
    params = {"params": initialised(older, *arrays)}
    np.testing.assert_array_equal(apply(older, params, *arrays), apply(LAYERS["multi-head"], params, *arrays))
    for sizes, message in (
        ((5, E, V), r"key_size=5 is not the last axis of \(2, 7, 4\)"),
        ((D, 5, V), r"query_size=5 is not the last axis of \(2, 5, 8\)"),
        ((D, E, 5), r"value_size=5 is not the last axis of \(2, 7, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            d2l.MultiHeadAttention.of_sizes(*sizes, HIDDENS, N, 0.1).init(RNG, *arrays)


def transpose_qkv(x: np.ndarray) -> np.ndarray:
    """Section 11.5.2: `[B, T, N · H]` to `[B · N, T, H]`."""
    split = np.stack(np.split(x, N, axis=-1), axis=1)  # [B, N, T, H]
    return np.concatenate(split, axis=0)


def test_heads_on_the_batch_axis_are_heads_side_by_side():
    valid = VALID["of queries"].clip(1)
    queries, keys, values = inputs("multi-head")
    layer = LAYERS["multi-head"]
    p = initialised(layer, queries, keys, values)
    q, k, v = dense(p["W_q"], queries), dense(p["W_k"], keys), dense(p["W_v"], values)
    folded = [transpose_qkv(x) for x in (q, k, v)]
    assert [x.size for x in folded] == [x.size for x in (q, k, v)]
    with jax.enable_x64(True):
        repeated = np.repeat(valid, N, axis=0)
        scores = folded[0] @ folded[1].swapaxes(1, 2) / math.sqrt(HIDDENS / N)
        weights = np.asarray(d2l.masked_softmax(jnp.asarray(scores), repeated))
        heads = (weights @ folded[2]).reshape(B, N, T, -1)
        merged = np.concatenate([heads[:, n] for n in range(N)], axis=-1)
        agree(apply(layer, {"params": p}, queries, keys, values, valid), dense(p["W_o"], merged), 1e-12)
        looked_at = apply(layer, {"params": p}, queries, keys, values, valid, method="attention_weights")
        agree(looked_at, weights, 1e-12)
        assert not np.allclose(looked_at[1], weights[N], atol=1e-2)  # b0h1 is not b1h0


def encoding(length: int, dim: int) -> np.ndarray:
    P = np.zeros((length, dim))
    for i, j in np.ndindex(length, dim // 2):
        angle = i / 10_000 ** (2 * j / dim)
        P[i, 2 * j], P[i, 2 * j + 1] = math.sin(angle), math.cos(angle)
    return P


def test_positional_encoding_as_the_book_draws_it():
    layer = d2l_transformer.PositionalEncoding(32, 0.5)
    P = np.asarray(layer.apply({}, jnp.zeros((1, 60, 32))))[0]
    np.testing.assert_allclose(P, encoding(60, 32), atol=1e-7)
    np.testing.assert_allclose(P[0, 6:10], [0, 1, 0, 1], atol=1e-7)
    np.testing.assert_allclose(P[10, 8:10], [0.841471, 0.540302], atol=1e-6)  # 10000^(8/32) is 10: sin 1 and cos 1
    assert [P[:20, column].argmax() for column in (6, 8)] == [9, 16]  # column 8 turns more slowly than column 6
    X = np.random.default_rng(0).normal(size=(2, 7, 32)).astype(np.float32)
    np.testing.assert_allclose(layer.apply({}, jnp.asarray(X)), X + encoding(7, 32), atol=1e-6)


def test_a_relative_position_is_a_rotation():
    """Section 11.6.3.2: one 2 × 2 matrix for a frequency and an offset takes any position's (sin, cos) to the other's."""
    P = np.asarray(d2l_transformer.PositionalEncoding(32, 0.0).apply({}, jnp.zeros((1, 60, 32))), np.float64)[0]
    pairs = P.reshape(60, 16, 2)
    for offset, j in itertools.product((1, 7, 30), range(16)):
        angle = offset / 10_000 ** (2 * j / 32)
        rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        np.testing.assert_allclose(pairs[:-offset, j] @ rotation.T, pairs[offset:, j], atol=2e-7)
        assert np.abs(pairs[:-offset, j] - pairs[offset:, j]).max() > 1e-6


def true_encoder(p: Any, tokens: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    table = p["embedding"]["embedding"]
    X = table[tokens] * math.sqrt(table.shape[1]) + encoding(tokens.shape[1], table.shape[1])

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    for block in (p["blks_0"], p["blks_1"]):
        Y = norm(block["addnorm1"]["LayerNorm_0"], X + truth("multi-head", block["attention"], X, X, X, valid)[0])
        hidden = dense(block["ffn"]["dense1"], Y)
        hidden = np.where(hidden.real > 0, hidden, 0)
        X = norm(block["addnorm2"]["LayerNorm_0"], Y + dense(block["ffn"]["dense2"], hidden))
    return X


def test_the_encoder_is_its_formula():
    tokens, valid = np.array([[3, 1, 4, 1, 5], [8, 2, 6, 5, 3]]), np.array([2, 4])
    encoder = d2l_transformer.TransformerEncoder(9, 6, 5, N, 2, 0.1)
    params = initialised(encoder, tokens)
    expected = true_encoder(params, tokens, valid)
    cotangent = np.random.default_rng(2).normal(size=expected.shape)

    def loss(params):
        output = jnp.asarray(encoder.apply({"params": params}, tokens, valid))
        return (output * cotangent).sum(), output

    gradients = slopes(lambda p: (true_encoder(p, tokens, valid) * cotangent).sum(), params)
    with jax.enable_x64(True):
        (_, output), ours = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    agree((output, ours), (expected, gradients), 1e-6)  # the table of positions is rounded to float32


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_drops_weights_and_scales_the_others(name):
    """Values that are the identity show the weights that were used, of each head those of its own channels."""
    width = HIDDENS
    queries, keys, _ = (jnp.asarray(x, jnp.float32) for x in inputs(name))
    keys, values = jnp.tile(keys, (1, 2, 1))[:, :width], jnp.broadcast_to(jnp.eye(width), (B, width, width))
    layer = LAYERS[name].clone(dropout=0.4)
    params = jax.jit(layer.init)(RNG, queries, keys, values)
    if name == "multi-head":
        params["params"]["W_v"]["kernel"] = params["params"]["W_o"]["kernel"] = jnp.eye(width)
    weights = np.asarray(apply(layer, params, queries, keys, values, method="attention_weights"))
    of_heads = np.split(weights.reshape(B, -1, T, width), 1 if name != "multi-head" else N, axis=1)
    channels = np.split(np.arange(width), len(of_heads))
    weights = np.concatenate([head[:, 0][..., own] for head, own in zip(of_heads, channels, strict=True)], axis=-1)

    @jax.jit
    def dropped(rng):
        return layer.apply(params, queries, keys, values, deterministic=False, rngs={"dropout": rng})

    def used(seed):
        return np.asarray(dropped(jax.random.key(seed)))

    kept = used(0) != 0
    assert 0.4 < kept.mean() < 0.8
    np.testing.assert_allclose(used(0), np.where(kept, weights / 0.6, 0), rtol=1e-5)
    np.testing.assert_array_equal(used(0), used(0))
    assert ((used(1) != 0) != kept).any()
    np.testing.assert_allclose(apply(layer, params, queries, keys, values), weights, rtol=1e-5)
    with pytest.raises(ValueError, match="deterministic=False needs the rng named 'dropout'"):
        layer.apply(params, queries, keys, values, deterministic=False)


def test_positional_encoding_and_add_norm_drop_where_the_book_does():
    """The sum of embedding and position; of the residual connection the branch alone."""
    rng = np.random.default_rng(0)
    X, Y = (jnp.asarray(rng.normal(size=(B, T, 4)), jnp.float32) for _ in range(2))
    options: dict[str, Any] = {"deterministic": False, "rngs": {"dropout": RNG}}
    placed = np.asarray(d2l_transformer.PositionalEncoding(4, 0.4).apply({}, X, **options))
    assert 0.3 < (placed != 0).mean() < 0.9
    np.testing.assert_allclose(placed, np.where(placed != 0, (X + encoding(T, 4)) / 0.6, 0), rtol=1e-5)
    layer = d2l_transformer.AddNorm(0.4)
    params = layer.init(RNG, X, Y)
    output, found = np.asarray(layer.apply(params, X, Y, **options)), set()
    for row, x, y in zip(*(np.float64(a).reshape(-1, 4) for a in (output, X, Y)), strict=True):
        sums = {kept: x + y * np.array(kept) / 0.6 for kept in itertools.product((0, 1), repeat=4)}
        near = [kept for kept, z in sums.items() if np.allclose((z - z.mean()) / np.sqrt(z.var() + 1e-6), row, atol=1e-4)]
        assert len(near) == 1
        found.update(near)
    assert len(found) > 1


@pytest.mark.parametrize("deterministic", [True, False])
def test_every_part_of_the_encoder_is_told_whether_to_drop(deterministic):
    tokens, told = jnp.array([[3, 1, 4, 1, 5], [8, 2, 6, 5, 3]]), {}
    encoder = d2l_transformer.TransformerEncoder(9, HIDDENS, 5, N, 2, 0.4)
    params = {"params": initialised(encoder, tokens)}

    def listen(call, args, kwargs, context):
        if "deterministic" in kwargs:
            told["/".join(context.module.path)] = kwargs["deterministic"]
        return call(*args, **kwargs)

    with nn.intercept_methods(listen):
        jax.eval_shape(lambda rng: encoder.apply(params, tokens, deterministic=deterministic, rngs={"dropout": rng}), RNG)
    block = ("", "/attention", "/addnorm1", "/addnorm2")
    assert told == dict.fromkeys(["", "pos_encoding", *(f"blks_{i}{part}" for i in range(2) for part in block)], deterministic)


def test_what_lies_past_the_valid_length_never_leaks():
    queries, keys, values = (jnp.asarray(x, jnp.float32) for x in inputs("dot"))
    valid = jnp.array([3, 6])
    outside = jnp.arange(S)[None, :, None] >= valid[:, None, None]
    layer = LAYERS["dot"]

    def loss(queries, keys, values):
        return layer.apply({}, queries, keys, values, valid).sum()

    dirty = [queries, *(jnp.where(outside, jnp.nan, x) for x in (keys, values))]
    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    agree(both(*dirty), both(queries, keys, values), 1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_of_queries_make_no_array_of_queries_by_keys(name):
    queries, keys, values = (jnp.zeros((1, n, D)) for n in (2048, 4096, 4096))
    layer, valid = LAYERS[name], jnp.ones((1, 2048), int)
    params = layer.init(RNG, queries[:, :1], keys[:, :1], values[:, :1])

    def program(method: str) -> str:
        return str(jax.make_jaxpr(lambda *x: layer.apply(params, *x, valid, method=method))(queries, keys, values))

    assert "2048,4096" not in program("__call__")
    assert "2048,4096" in program("attention_weights")


def in_torch(torch: Any, formula: Any, tree: Any, cotangent: np.ndarray) -> tuple[np.ndarray, Any]:
    """The output, and the gradients of what of `tree` is floating point."""
    tensors = jax.tree.map(lambda x: torch.tensor(x, requires_grad=x.dtype == np.float64), tree)
    output = formula(*tensors)
    output.backward(torch.from_numpy(cotangent))
    return output.detach().numpy(), jax.tree.map(lambda x: x.grad.numpy(), tensors)


def with_gradients(function: Any, tree: Any, cotangent: np.ndarray) -> tuple[Any, Any]:
    """The same of a function in JAX."""

    @jax.jit
    def both(tree: Any, cotangent: Any) -> tuple[Any, Any]:
        output, pull = jax.vjp(function, *tree)
        return output, pull(cotangent)

    return both(tree, cotangent)


def torch_linear(torch: Any, p: Any, x: Any) -> Any:
    return torch.nn.functional.linear(x, p["kernel"].T, p.get("bias"))


def torch_attention(torch: Any, name: str, valid: Any, p: Any, queries: Any, keys: Any, values: Any) -> Any:
    lengths = torch.full((B,), keys.shape[1]) if valid is None else torch.from_numpy(valid)
    allowed = torch.arange(keys.shape[1]) < lengths.reshape(B, -1, 1)
    if name == "additive":
        hidden = torch_linear(torch, p["W_q"], queries).unsqueeze(2) + torch_linear(torch, p["W_k"], keys).unsqueeze(1)
        scores = torch_linear(torch, p["w_v"], hidden.tanh()).squeeze(-1).masked_fill(~allowed, -1e6)
        return scores.softmax(-1) @ values
    heads = [
        torch_linear(torch, p[w], x).unflatten(-1, (N, -1)).transpose(1, 2)
        for w, x in (("W_q", queries), ("W_k", keys), ("W_v", values))
    ]
    output = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=allowed.unsqueeze(1))
    return torch_linear(torch, p["W_o"], output.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("name", ["additive", "multi-head"])
@pytest.mark.parametrize("valid", [None, np.array([7, 3]), VALID["of queries"].clip(1)], ids=["none", "1-D", "2-D"])
def test_layers_are_those_of_torch_with_the_same_weights(torch, record_property, name, valid):
    layer, arrays = LAYERS[name], inputs(name)
    tree = initialised(layer, *arrays), *arrays
    cotangent = np.random.default_rng(2).normal(size=(B, T, HIDDENS if name == "multi-head" else V))
    expected = in_torch(torch, lambda *x: torch_attention(torch, name, valid, *x), tree, cotangent)
    with jax.enable_x64(True):
        output, gradients = with_gradients(lambda p, *x: layer.apply({"params": p}, *x, valid), tree, cotangent)
        record_property("values", agree(output, expected[0], 1e-12))
        record_property("gradients", agree(gradients, expected[1], 1e-12))


def test_the_encoder_is_that_of_torch_with_the_same_weights(torch):
    tokens, valid = np.array([[3, 1, 4, 1, 5], [8, 2, 6, 5, 3]]), np.array([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]])
    encoder = d2l_transformer.TransformerEncoder(9, HIDDENS, 5, N, 2, 0.1, use_bias=True)
    params = initialised(encoder, tokens)
    cotangent = np.random.default_rng(2).normal(size=(B, T, HIDDENS))

    def formula(p):
        embedded = torch.nn.functional.embedding(torch.from_numpy(tokens), p["embedding"]["embedding"])
        X = embedded * math.sqrt(HIDDENS) + torch.from_numpy(encoding(T, HIDDENS))
        for block in (p["blks_0"], p["blks_1"]):
            attended = torch_attention(torch, "multi-head", valid, block["attention"], X, X, X)
            Y = norm(block["addnorm1"], X + attended)
            hidden = torch_linear(torch, block["ffn"]["dense1"], Y).relu()
            X = norm(block["addnorm2"], Y + torch_linear(torch, block["ffn"]["dense2"], hidden))
        return X

    def norm(p, x):
        scale, bias = p["LayerNorm_0"]["scale"], p["LayerNorm_0"]["bias"]
        return torch.nn.functional.layer_norm(x, (HIDDENS,), scale, bias, eps=1e-6)

    expected = in_torch(torch, formula, (params,), cotangent)
    with jax.enable_x64(True):
        found = with_gradients(lambda p: encoder.apply({"params": p}, tokens, valid), (params,), cotangent)
        agree(found, expected, 1e-6)  # the table of positions is rounded to float32


X, KEYS = jnp.ones((B, T, HIDDENS)), jnp.ones((B, S, HIDDENS))
REFUSED = {
    "num_hiddens=18 is not divisible by num_heads=4": lambda: d2l.MultiHeadAttention(18, 4, 0.1),
    "num_heads=0 must be a positive int": lambda: d2l_transformer.TransformerEncoderBlock(18, 5, 0, 0.1),
    "num_hiddens=18 is not divisible by num_heads=5": lambda: d2l_transformer.TransformerEncoder(9, 18, 5, 5, 2, 0.1),
    "num_hiddens=7 is not positive and even": lambda: d2l_transformer.PositionalEncoding(7, 0.1),
    "num_hiddens=9 is not positive and even": lambda: d2l_transformer.TransformerEncoder(9, 9, 5, 3, 2, 0.1),
    r"dropout=1\.0 must be a number in \[0, 1\)": lambda: d2l.DotProductAttention(1.0),
    r"dropout=-0\.1 must be a number": lambda: d2l_transformer.AddNorm(-0.1),
    r"dropout=True must be a number": lambda: d2l_transformer.TransformerEncoderBlock(18, 5, 3, True),
    r"queries \(2, 12\), keys \(2, 7, 12\) and values \(2, 7, 12\) must be": lambda: attended(X[:, 0], KEYS, KEYS),
    r"keys \(1, 7, 12\) and values \(1, 7, 12\) must be": lambda: attended(X, KEYS[:1], KEYS[:1]),
    r"keys \(2, 7, 12\) and values \(2, 5, 12\) must be": lambda: attended(X, KEYS, X),
    "query head dim 12 and key head dim 4 differ": lambda: attended(X, KEYS[..., :4], KEYS),
    "valid_lens is float32: it must be integers": lambda: attended(X, KEYS, KEYS, jnp.ones(B)),
    r"valid_lens \(5,\) must be \(2,\) or \(2, 5\)": lambda: attended(X, KEYS, KEYS, jnp.ones(T, int)),
    r"valid_lens \(2, 7\) must be \(2,\) or \(2, 5\)": lambda: d2l.masked_softmax(X, jnp.ones((B, S), int)),
    r"X \(2, 5, 12\) of int32 must be floating point": lambda: d2l.masked_softmax(X.astype(int), None),
    r"X \(5, 12\) of float32 must be floating point scores \[B, Q, K\]": lambda: d2l.masked_softmax(X[0], None),
    r"X \(2, 5, 12\) is longer than max_len=4 positions": lambda: d2l_transformer.PositionalEncoding(12, 0.1, 4).apply({}, X),
    r"num_hiddens=6 is not the last axis of \(2, 5, 12\)": lambda: d2l_transformer.PositionalEncoding(6, 0.1).apply({}, X),
    r"X \(2, 5, 12\) and Y \(2, 7, 12\) differ": lambda: d2l_transformer.AddNorm(0.1).init(RNG, X, KEYS),
}


def attended(*args: Any) -> Any:
    return d2l.DotProductAttention(0.1).apply({}, *args)


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_refused_in_one_line(message):
    with pytest.raises(ValueError, match=message) as raised:
        REFUSED[message]()
    assert "\n" not in str(raised.value)
