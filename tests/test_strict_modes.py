"""Every option of the operator in JAX's strict modes, which users switch on for their whole program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, COTANGENT, KEY, QUERY, TILE, VALUE, B, K, N, S, T, random

import attn
from attn import mask_mods, score_mods, scores

pytestmark = pytest.mark.usefixtures("fast_compilation")

LENGTHS = np.array([0, 4], np.int32)
OPTIONS = {
    name: case.options(jax.tree.map(jnp.asarray, case.parameters)) | {"dense_alone": case.dense_alone}
    for name, case in CASES.items()
}
OPTIONS |= {
    "alibi": {"score_mod": score_mods.alibi(N)},
    "t5": {"score_mod": score_mods.t5_relative_bias(random(8, N)), "causal": "bottom_right"},
    "t5, causal": {"score_mod": score_mods.t5_relative_bias(random(8, N), bidirectional=False)},
    "relative bias": {"score_mod": score_mods.relative_bias(random(N, 2 * S - 1))},
    "chain": {"score_mod": score_mods.chain(score_mods.alibi(N), score_mods.soft_cap(2.0)), "key_lengths": LENGTHS},
    "document": {"mask_mod": mask_mods.document(np.array([[0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 3, 3]]))},
    "prefix or causal": {"mask_mod": mask_mods.any_of(mask_mods.prefix(LENGTHS), mask_mods.causal)},
    "window and causal": {"mask_mod": mask_mods.all_of(mask_mods.sliding_window(2, 1), mask_mods.causal)},
    "cosine per head": {"score": scores.cosine(random(N)), "key_lengths": LENGTHS},
    "sigmoid, lengths": {"normalizer": "sigmoid", "key_lengths": LENGTHS},
    "sparsemax, lengths": {"normalizer": "sparsemax", "key_lengths": LENGTHS, "dense_alone": True},
    "entmax15, lengths": {"normalizer": "entmax15", "key_lengths": LENGTHS, "dense_alone": True},
}


def results(name, query, key, value):
    """Everything that one set of options can be passed to, with gradients."""
    options = {k: v for k, v in OPTIONS[name].items() if k != "dense_alone"}
    everything = {"weights": attn.attention_weights(query, key, **options)}

    def of(function, **more):
        def total(query, key, value):
            output = function(query, key, value, **options, **more).astype(jnp.float32)
            return jnp.sum(output * (COTANGENT if output.ndim == COTANGENT.ndim else 1)), output

        (_, output), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(query, key, value)
        return output, gradients

    kernels = {"dense": {}} if OPTIONS[name].get("dense_alone") else {"dense": {}, "chunked": {"block": TILE}}
    if name in ("plain", "lengths", "sink", "alibi", "dropout"):
        kernels |= {"chunked_autodiff": {"block": TILE}, "auto": {}}
    for kernel, more in kernels.items():
        everything[kernel] = of(functools.partial(attn.attend, implementation=kernel), **more)
    everything["pooled"] = of(attn.attend_pooled, query_weights=jnp.ones(T, jnp.float32))
    if options.get("normalizer", "softmax") in ("softmax", "softmax1"):
        everything["statistics"] = attn.attention_statistics(query, key, top_k=2, block=TILE, **options)
    return everything


def others(query):
    """The functions that take no options of `attend`."""
    positions = jnp.arange(T, dtype=jnp.int32)
    batched = jnp.broadcast_to(positions, (B, T))
    turned = [attn.positions.rotary(query[..., :2], x) for x in (None, positions, batched)]
    lse = jnp.zeros((B, N, T), jnp.float32)
    merged = [attn.merge_attention([query, query], [lse, lse], sink) for sink in (None, random(N))]
    return turned, merged, attn.merge_attention([query, query], None), attn.positions.sinusoidal(T, 4)


# The score_mod of `cases` multiplies a float by an integer, which the mode forbids.
@pytest.mark.parametrize("name", [*(name for name in OPTIONS if name != "score_mod"), "others"])
def test_neither_ranks_nor_dtypes_are_promoted(name):
    """Tracing is enough: JAX compares ranks and dtypes when it traces."""
    run = others if name == "others" else functools.partial(results, name)
    arguments = (QUERY,) if name == "others" else (QUERY, KEY, VALUE)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(run, *(jnp.asarray(x, jnp.bfloat16) for x in arguments))


# Those with an exponential, a root or a division of their own, beside rows without a key.
NUMERIC = (
    "plain",
    "lengths",
    "sink",
    "cosine per head",
    "chain",
    *(f"{name}, lengths" for name in ("sigmoid", "sparsemax", "entmax15")),
)


@pytest.mark.parametrize("name", NUMERIC)
def test_no_program_returns_nan_or_inf(name):
    """JAX checks what each program returns, and each operation outside of one. Masked logits of −∞ stay inside."""
    options = {k: v for k, v in OPTIONS[name].items() if k != "dense_alone"}
    kernel = {} if OPTIONS[name].get("dense_alone") else {"implementation": "chunked", "block": TILE}
    with jax.debug_nans(True), jax.debug_infs(True):
        jax.vjp(lambda *x: attn.attend(*x, **options, **kernel), QUERY, KEY, VALUE)[1](jnp.asarray(COTANGENT))
        if name in ("plain", "lengths", "sink", "sigmoid, lengths"):
            attn.attention_weights(QUERY, KEY, **options)
            total = functools.partial(attn.attend_pooled, query_weights=jnp.ones(T), **options)
            jax.grad(lambda *x: jnp.sum(total(*x)))(QUERY, KEY, VALUE)
        if name in ("plain", "sink"):
            statistics = attn.attention_statistics(QUERY, KEY, **options)
            attn.merge_attention([QUERY, QUERY], [statistics.lse, statistics.lse], options.get("sink"))


def test_only_the_log_sum_exp_of_nothing_is_inf():
    """By the contract it is −∞, and so is the highest score of a query without a key."""
    with jax.debug_infs(True), pytest.raises(FloatingPointError, match="inf"):
        attn.attention_statistics(QUERY, KEY, key_lengths=LENGTHS)


@pytest.mark.parametrize("narrow", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["query", "value", "bias", "sink", "score", "score_mod"])
def test_one_array_of_another_dtype(name, narrow):
    """The others are of the dtype of the computation. There are several tiles, over which gradients are summed."""
    wide = {"bfloat16": "float32", "float32": "float64"}[narrow]

    def total(arrays):
        score, mod = scores.additive(arrays["score"]), score_mods.relative_bias(arrays["score_mod"])
        names = "query", "key", "value"
        options = {"sink": arrays["sink"], "bias": arrays["bias"], "score": score, "score_mod": mod, "causal": "bottom_right"}
        output = attn.attend(*map(arrays.get, names), **options, implementation="chunked", block=TILE)
        return jnp.sum(output.astype(wide))

    arrays = {"query": QUERY, "key": KEY, "value": VALUE, "bias": random(B, 1, T, S), "sink": random(N)}
    arrays |= {"score": random(QUERY.shape[-1]), "score_mod": random(N, 2 * S - 1)}
    with jax.enable_x64(wide == "float64"), jax.numpy_dtype_promotion("strict"):
        given = {key: jnp.asarray(x, narrow if key == name else wide) for key, x in arrays.items()}
        found = jax.eval_shape(jax.grad(total), given)
    assert {key: x.dtype for key, x in found.items()} == {key: x.dtype for key, x in given.items()}


def test_the_modes_are_seen():
    with jax.numpy_rank_promotion("raise"), pytest.raises(ValueError, match="rank_promotion"):
        jax.eval_shape(lambda x: x + jnp.ones(K), jnp.ones((B, K)))
    with jax.numpy_dtype_promotion("strict"), pytest.raises(jax.dtypes.TypePromotionError):
        jax.eval_shape(lambda x: x + jnp.ones(K), jnp.ones(K, jnp.bfloat16))
