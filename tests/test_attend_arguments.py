"""Every rule about an argument of `attn.attend`: what breaks it is one line with the argument, its shape and the rule."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, QUERY, VALUE, B, H, K, N, S, T, V

import attn
from attn import mask_mods, scores

pytestmark = pytest.mark.usefixtures("fast_compilation")
SCORES = rf"\({B}, {N}, {T}, {S}\)"
BAD = [
    ({"query": QUERY[0, 0]}, r"query \(4, 3\) must be \[\*B, T, N, H\]: it has 2 axes"),
    ({"key": KEY[0]}, r"key \(7, 2, 3\) must be .* of the rank of query \(2, 5, 4, 3\)"),
    ({"query": QUERY.astype(int)}, r"query is int32: it must be floating point, of 16, 32 or 64 bits"),
    ({"key": KEY[:1]}, r"key \(1, 7, 2, 3\) and query \(2, 5, 4, 3\) differ in their batch axes \(1,\)"),
    ({"value": VALUE[:, 1:]}, r"value \(2, 6, 2, 6\) and key \(2, 7, 2, 3\) differ before their last axis"),
    ({"query": QUERY[:, :, :3]}, r"has 3 heads, not a multiple of the 2 heads of key"),
    ({"key": KEY[..., :2]}, r"query head dim 3 and key head dim 2 differ: scaled_dot needs them equal"),
    ({"mask": np.ones((B, N, T, S))}, r"mask is float32: it must be bool"),
    ({"mask": np.ones((B, T, S), bool)}, rf"mask \(2, 5, 7\) does not broadcast to the scores {SCORES}: same rank"),
    ({"mask": np.ones((B, N, S, T), bool)}, rf"mask \(2, 4, 7, 5\) does not broadcast to the scores {SCORES}"),
    ({"bias": np.ones((B, N, T, 2), np.float32)}, rf"bias \(2, 4, 5, 2\) does not broadcast to the scores {SCORES}"),
    (
        {"bias": np.ones((B, N, T, S), bool)},
        r"bias is bool: it must be floating point; a bool array .* is mask",
    ),
    ({"causal": True}, r"causal=True with T=5 and S=7: name an alignment, 'top_left' or 'bottom_right'"),
    ({"causal": "bottom_rihgt"}, r"causal='bottom_rihgt' is not one of .*; did you mean 'bottom_right'\?"),
    ({"causal": "top_left", "key_positions": np.arange(S)}, r"causal='top_left' with positions: .* pass causal=True"),
    ({"window": 3}, r"window=3 must be \(left, right\), each None or an int of at least 0"),
    ({"window": (-1, None)}, r"window=\(-1, None\) must be"),
    ({"window": (1, 1)}, r"window=\(1, 1\) with T=5 and S=7: name an alignment"),
    ({"key_lengths": np.array([1, 2, 3])}, r"key_lengths \(3,\) must have the shape of the batch axes \(2,\)"),
    ({"query_lengths": np.array([1.0, 2.0])}, r"query_lengths is float64: it must be integers"),
    ({"query_segments": np.zeros(T, int)}, r"key_segments is missing: segments are given for queries and keys"),
    (
        {"query_segments": np.zeros(S, int), "key_segments": np.zeros(S, int)},
        r"query_segments \(7,\) must be \(5,\) or \(2, 5\)",
    ),
    ({"query_positions": np.zeros((T, B), int), "causal": True}, r"query_positions \(5, 2\) must be \(5,\) or \(2, 5\)"),
    ({"dropout_rate": 0.1}, r"dropout_rate=0.1 needs dropout_rng"),
    ({"dropout_rate": 1.0, "dropout_rng": cases.RNG}, r"dropout_rate=1.0 must be a number in \[0, 1\)"),
    ({"dropout_rate": float("nan")}, r"dropout_rate=nan must be a number in \[0, 1\)"),
    (
        {"dropout_rate": 0.1, "dropout_rng": cases.RNG, "dropout_offset": (1, 2, 3)},
        r"dropout_offset=\(1, 2, 3\) must be an integer",
    ),
    ({"score": "scaled-dot"}, r"score='scaled-dot' is not one of .*; did you mean 'scaled_dot'\?"),
    ({"score": 3}, r"score=3 must be one of .* or a function of two vectors"),
    ({"score": lambda q, k: q * k}, r"score returns .* for one query and one key: it must return one real scalar"),
    ({"score": scores.bilinear(jnp.ones((H, H + 1)))}, r"bilinear matrix \(3, 4\) must be \(3, 3\)"),
    ({"score": scores.additive(jnp.ones(H + 1))}, r"additive vector \(4,\) must be \(3,\)"),
    ({"scale": np.ones(N)}, r"scale has shape \(4,\) and dtype float32: it must be a real scalar"),
    ({"score_mod": "alibi"}, r"score_mod='alibi' must be a function"),
    ({"score_mod": lambda s, b, h, q, k: q < k}, r"score_mod returns bool: score_mod returns a score, mask_mod a bool"),
    ({"mask_mod": lambda b, h, q, k: q - k}, r"mask_mod returns int32: .* mask_mod a bool"),
    ({"normalizer": "softmx"}, r"normalizer='softmx' is not one of .*; did you mean 'softmax'\?"),
    ({"sink": np.zeros(K, np.float32)}, r"sink \(2,\) of float32 must be one floating point logit for each head, \(4,\)"),
    ({"sink": np.zeros(N, np.float32), "normalizer": "sigmoid"}, r"sink with normalizer='sigmoid': only softmax and softmax1"),
    ({"query": None}, r"query=None is NoneType: it must be an array"),
    ({"bias": "x"}, r"bias='x' is str: it must be an array"),
    ({"causal": 1}, r"causal=1 must be True, False or an alignment"),
    ({"normalizer": None}, r"normalizer=None is not one of"),
    ({"score": scores.dot}, r"score=Dot is a class: pass its name"),
    ({"score": scores.cosine(np.ones(3))}, r"cosine temperature \(3,\) must be \(\) or \(4,\)"),
    ({"score": scores.concat("x")}, r"concat weight='x' must be a number or an array"),
    ({"score": lambda q: q[0]}, r"score is called with 2 arguments: too many positional arguments"),
    ({"score": lambda q, k: q[0] > 0}, r"score returns bool: it must return a floating point score"),
    ({"score": lambda q, k: q @ k * 1j}, r"it must return one real scalar"),
    ({"score_mod": lambda s: s}, r"score_mod is called with 5 arguments: too many positional arguments"),
    ({"dropout_rate": 0.1, "dropout_rng": 0.5}, r"dropout_rng=0.5 must be one key of jax.random"),
    ({"dropout_rate": 0.1, "dropout_rng": cases.RNG, "dropout_offset": "x"}, r"dropout_offset='x' must be an integer"),
    ({"query": QUERY[..., :0], "key": KEY[..., :0]}, r"must have at least one head and one channel"),
    ({"implementation": "flash"}, r"implementation='flash' is not one of"),
    (
        {"implementation": "chunked", "normalizer": "sparsemax"},
        r"implementation='chunked' does not honour normalizer='sparsemax'",
    ),
    ({"implementation": "fused"}, r"implementation='fused' needs an NVIDIA GPU or a TPU: this is cpu"),
    ({"block": 0}, r"block=0 must be one int of at least 1, or two: queries and keys in a tile"),
    ({"block": 4, "implementation": "dense"}, r"block=4 with implementation='dense': only 'chunked' and 'chunked_autodiff'"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[" ".join(change) + str(i) for i, (change, _) in enumerate(BAD)])
def test_bad_arguments_are_refused_in_one_line(change, message):
    arguments = {"query": QUERY, "key": KEY, "value": VALUE} | change
    with pytest.raises(ValueError, match=message) as caught:
        attn.attend(**arguments)
    assert "\n" not in str(caught.value)


def test_statistics_refuse_what_they_cannot_say():
    with pytest.raises(ValueError, match=r"normalizer='sigmoid' has no statistics: only softmax and softmax1 have"):
        attn.attention_statistics(QUERY, KEY, normalizer="sigmoid")
    with pytest.raises(ValueError, match=r"top_k=8 must be an int from 0 to the number of keys, 7"):
        attn.attention_statistics(QUERY, KEY, top_k=8)
    with pytest.raises(ValueError, match=r"1 outputs and 2 lses"):
        attn.merge_attention([VALUE], [QUERY, QUERY])
    with pytest.raises(ValueError, match=r"sliding_window\(None, None\) masks nothing"):
        mask_mods.sliding_window(None, None)


def test_explain_names_the_implementation_and_what_rules_out_the_others():
    plain = attn.explain(QUERY, KEY, VALUE)
    assert (plain.implementation, plain.block[2:4]) == ("chunked", (T, S))
    assert plain.others.keys() == {"fused", "chunked_autodiff", "dense"}
    assert str(plain).startswith(
        "chunked, tiles of 5 queries by 7 keys\n  not fused: needs an NVIDIA GPU or a TPU: this is cpu\n"
    )
    sorted_rows = attn.explain(QUERY, KEY, VALUE, normalizer="entmax15")
    assert sorted_rows.implementation == "dense" and "sorts whole rows" in sorted_rows.others["chunked"]
    assert attn.explain(QUERY, KEY, VALUE, implementation="chunked", block=(2, 3)).block[2:4] == (2, 3)


def test_unequal_head_dims_with_a_bilinear_score():
    matrix = jnp.asarray(cases.random(H, H + 2))
    key = cases.random(B, S, K, H + 2)
    expected = attn.attend(QUERY @ matrix, key, VALUE, score="dot")
    np.testing.assert_allclose(attn.attend(QUERY, key, VALUE, score=scores.bilinear(matrix)), expected, atol=1e-6)


@pytest.mark.parametrize("score", ["cosine", "bilinear", "additive", "concat"])
def test_a_bare_name_means_unit_parameters(score):
    ones = {"cosine": (1.0,), "bilinear": (jnp.eye(H),), "additive": (jnp.ones(H), 1.0), "concat": (1.0, 1.0)}[score]
    expected = attn.attend(QUERY, KEY, VALUE, score=getattr(scores, score)(*ones))
    np.testing.assert_allclose(attn.attend(QUERY, KEY, VALUE, score=score), expected, atol=1e-6)


def test_the_output_has_the_values_dtype():
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        assert attn.attend(QUERY, KEY, jnp.asarray(VALUE, dtype)).dtype == dtype
    assert attn.attend(QUERY, KEY, VALUE).shape == (B, T, N, V)
    assert jax.eval_shape(lambda q: attn.attend(q[0], KEY[0], VALUE[0]), QUERY).shape == (T, N, V)


@pytest.mark.parametrize("function", [attn.attend_pooled, attn.attention_weights, attn.attention_statistics, attn.explain])
def test_an_unknown_argument_is_named_with_the_closest(function):
    with pytest.raises(TypeError, match=rf"^{function.__name__}\(\) has no argument 'is_causal'; did you mean 'causal'\?$"):
        function(QUERY, KEY, VALUE, is_causal=True)


def test_merge_attention_names_the_log_sum_exp_of_another_shape():
    output = np.zeros((2, 5, 4, 3), np.float32)
    with pytest.raises(
        ValueError, match=r"lses\[1\] \(2, 5, 4\) must be \[\*B, N, T\], \(2, 4, 5\) for outputs \(2, 5, 4, 3\)"
    ):
        attn.merge_attention([output, output], [np.zeros((2, 4, 5)), np.zeros((2, 5, 4))])
