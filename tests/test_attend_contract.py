"""The contract of attention on every path: empty rows, NaN under the mask, transforms, and what must change nothing."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import COTANGENT, KEY, QUERY, VALUE, B, N, S, T
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

import attn

pytestmark = pytest.mark.usefixtures("fast_compilation")
IMPLEMENTATIONS = ("dense", "chunked", "chunked_autodiff")
SCORES = ("scaled_dot", "cosine", "additive", "neg_squared_distance")
several = settings(max_examples=8, deadline=None, derandomize=True)


def attend(implementation, **options):
    block = None if implementation == "dense" else cases.TILE
    return functools.partial(attn.attend, implementation=implementation, block=block, **options)


def output_and_gradients(function, *inputs):
    """One compiled program: operation by operation, each would be compiled alone."""

    @jax.jit
    def both(*inputs):
        output, pull = jax.vjp(function, *inputs)
        return output, *pull(jnp.asarray(COTANGENT[:, : output.shape[1]], output.dtype))

    return both(*inputs)


def all_close(actuals, expected, tolerance=2e-6):
    for actual, wanted in zip(actuals, expected, strict=True):
        close(actual, wanted, tolerance)


@functools.cache
def _compiled(implementation, static):
    def run(inputs, arrays):
        return output_and_gradients(attend(implementation, **dict(static), **arrays), *inputs)

    return jax.jit(run)


def compiled(implementation, inputs, arrays, **static):
    """Output and gradients; `arrays` are arguments of the program, so that new values compile nothing."""
    return _compiled(implementation, tuple(static.items()))(inputs, {name: jnp.asarray(x) for name, x in arrays.items()})


def close(actual, expected, tolerance=2e-6):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1e-30, float(np.abs(expected).max())))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_nan_reaches_exactly_the_queries_that_may_attend_to_it(implementation, score):
    """Key 3 and value 5 are poisoned. Every other output and gradient is that of a zero there."""
    mask = np.random.default_rng(2).random((B, N, T, S)) < 0.6
    mask[..., 0] = True
    mask[:, :, 2:, [3, 5]] = mask[:, :, :2, [1, 6]] = False  # keys 1 and 6 are out of reach of the poison
    mask[1, :, :, 3] = False  # in example 1 nobody may attend to key 3
    zero_key, zero_value = KEY.copy(), VALUE.copy()
    zero_key[:, 3], zero_value[:, 5] = 0, 0
    for poison in (np.nan, np.inf):
        bad_key, bad_value = zero_key.copy(), zero_value.copy()
        bad_key[:, 3], bad_value[:, 5] = poison, poison
        clean = compiled(implementation, (QUERY, zero_key, zero_value), {"mask": mask}, score=score)
        poisoned = compiled(implementation, (QUERY, bad_key, bad_value), {"mask": mask}, score=score)
        sees = np.moveaxis(mask[..., 3] | mask[..., 5], 1, 2)  # [B, T, N]
        assert 0 < sees.sum() < sees.size
        if np.isnan(poison):  # an infinite key may score −inf, or tanh(inf) = 1
            assert np.isnan(np.asarray(poisoned[0])[sees]).all() and np.isnan(np.asarray(poisoned[1])[sees]).all()
        for index in (0, 1):  # the output and the gradient of the query
            close(np.asarray(poisoned[index])[~sees], np.asarray(clean[index])[~sees])
        reached = np.einsum("bnts,btn->bsn", mask, sees).reshape(B, S, cases.K, -1).any(axis=-1)
        reached[:, [3, 5]] = True
        for index in (2, 3):
            close(np.asarray(poisoned[index])[~reached], np.asarray(clean[index])[~reached])
        assert not np.asarray(poisoned[2])[1, 3].any()  # nobody may attend to it: gradient 0


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_no_query_may_attend_to_changes_no_bit(implementation):
    lengths = {"key_lengths": [4, 0], "query_lengths": [5, 3]}
    with jax.debug_nans(True):
        clean = compiled(implementation, (QUERY, KEY, VALUE), lengths)
        for poison in (np.nan, -np.inf):
            key, value, query = KEY.copy(), VALUE.copy(), QUERY.copy()
            key[0, 4:], value[0, 4:], key[1], value[1], query[1, 3:] = (poison,) * 5
            poisoned = compiled(implementation, (query, key, value), lengths)
            for before, after in zip(clean, poisoned, strict=True):
                close(after, before)
    assert not np.asarray(clean[0])[1].any() and not np.asarray(clean[1])[1].any()


def undefined_at_0(query, key):
    """A cosine without an epsilon."""
    return query @ key / (jnp.sqrt(query @ query) * jnp.sqrt(key @ key))


@pytest.mark.parametrize("score", (*SCORES, undefined_at_0))
@pytest.mark.parametrize("implementation", (*IMPLEMENTATIONS, "pooled"))
def test_a_key_that_is_masked_for_every_query_leaves_no_trace(implementation, score):
    """In one tile, where it costs no product pair by pair. A NaN in a query does not reach the gradients of such a key."""
    mask = np.ones((B, 1, 1, S), bool)
    mask[0, ..., [2, 6]], mask[1] = False, False
    hidden = ~mask[:, 0, 0]
    if implementation == "pooled":
        attend = functools.partial(attn.attend_pooled, query_weights=np.float32([1, 0, 2, 3, 1]), score=score)
    else:
        attend = functools.partial(attn.attend, implementation=implementation, score=score)

    @jax.jit
    def run(*inputs):
        output, pull = jax.vjp(lambda *inputs: attend(*inputs, mask=mask), *inputs)
        return output, *pull(jnp.asarray(COTANGENT[:, 0] if implementation == "pooled" else COTANGENT))

    if implementation != "chunked_autodiff":  # it has a branch for tiles without a pair
        assert "cond[" not in str(jax.make_jaxpr(run)(QUERY, KEY, VALUE))
    clean = run(QUERY, KEY, VALUE)
    assert not np.asarray(clean[0])[1].any()
    for poison in (np.nan, np.inf):
        key, value = (np.where(hidden[..., None, None], np.float32(poison), x) for x in (KEY, VALUE))
        for before, after in zip(clean, run(QUERY, key, value), strict=True):
            np.testing.assert_array_equal(after, before)
    query = QUERY.copy()
    query[0, 3] = np.nan
    bad = run(query, KEY, VALUE)
    assert np.isnan(np.asarray(bad[0])[0, ... if implementation == "pooled" else 3]).all()
    assert np.isnan(np.asarray(bad[2])[~hidden]).all() and not np.asarray(bad[2])[hidden].any()
    assert not np.asarray(bad[3])[hidden].any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_transforms_compose(implementation):
    run = attend(implementation, causal="bottom_right")
    loss = lambda *x: jnp.sum(jax.vmap(run)(*x) * COTANGENT)  # noqa: E731

    @jax.jit
    def lifted(*inputs):
        outputs = [function(*inputs) for function in (run, jax.jit(run), jax.vmap(run), jax.checkpoint(run))]
        outputs.append(jax.lax.scan(lambda _, x: (None, run(*x)), None, inputs)[1])
        of_batch = jax.grad(loss, argnums=(0, 1, 2))(*inputs)
        of_examples = jax.vmap(lambda *x: jax.vjp(run, *x[:3])[1](x[3]))(*inputs, jnp.asarray(COTANGENT))
        return outputs, (of_batch, of_examples)

    expected, *wanted = output_and_gradients(run, QUERY, KEY, VALUE)
    close(run(QUERY, KEY, VALUE), expected)
    outputs, gradients = lifted(QUERY, KEY, VALUE)
    for output in outputs:
        close(output, expected)
    for gradient in gradients:
        all_close(gradient, wanted, 1e-5)


@pytest.mark.parametrize("implementation, axis", [("dense", 0), ("chunked", 2), ("chunked_autodiff", 0)])
def test_shards_of_the_batch_and_of_the_heads(implementation, axis):
    """With dropout, whose bits are those of the whole; the key and value heads are sharded with their queries."""
    options = {"dropout_rate": 0.3, "dropout_rng": cases.RNG, "causal": "top_left"}
    mesh, spec = Mesh(np.array(jax.devices()[:2]), ("shard",)), PartitionSpec(*[None] * axis, "shard")

    def one_shard(*inputs):
        index = jax.lax.axis_index("shard")
        offset = (index, 0) if axis == 0 else (0, index * N // 2)
        return attend(implementation, dropout_offset=offset, **options)(*inputs)

    sharded = jax.shard_map(one_shard, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec)
    inputs = tuple(map(jnp.asarray, (QUERY, KEY, VALUE)))
    whole = output_and_gradients(attend(implementation, **options), *inputs)
    all_close(output_and_gradients(sharded, *inputs), whole, 1e-5)


def test_captured_arrays_get_their_gradient_through_a_shard():
    mesh = Mesh(np.array(jax.devices()[:2]), ("shard",))
    table = jnp.asarray(cases.random(N, T + S - 1))

    def loss(table, shard):
        def summed(query, key, value):
            mod = attn.score_mods.chain(lambda score, b, h, q, k: score + table[h, k - q + T - 1])
            return jnp.sum(attend("chunked", score_mod=mod)(query, key, value))

        def one_shard(*inputs):
            return jax.lax.psum(summed(*inputs), "shard")

        spec = PartitionSpec("shard")
        function = jax.shard_map(one_shard, mesh=mesh, in_specs=(spec,) * 3, out_specs=PartitionSpec()) if shard else summed
        return function(QUERY, KEY, VALUE)

    whole, sharded = (jax.jit(jax.grad(functools.partial(loss, shard=shard)))(table) for shard in (False, True))
    assert np.abs(whole).max() > 0
    close(sharded, whole, 1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"score_mod": lambda score, b, h, q, k: jnp.where(q > k, 2.0 * score, score - jnp.abs(q - k))},
        {"score_mod": attn.score_mods.t5_relative_bias(cases.random(8, N))},
        {"score": lambda query, key: jnp.sum(query * key) / (1 + jnp.sum(key * key))},
        {"score_mod": lambda score, b, h, q, k: jax.nn.relu(score) - 0.3 * jnp.sqrt(jnp.abs(q - k) + 1.0)},
        {"score_mod": lambda score, b, h, q, k: jax.nn.silu(score), "mask_mod": lambda b, h, q, k: q + 1 >= k},
    ],
    ids=["literals", "t5", "score", "relu", "silu"],
)
def test_functions_of_literals_and_positions_in_a_shard(implementation, options):
    """What a function was traced with does not vary over the shards, and its scores do."""
    mesh, spec = Mesh(np.array(jax.devices()[:2]), ("shard",)), PartitionSpec("shard")
    whole = attend(implementation, **options)
    sharded = jax.shard_map(whole, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec)
    inputs = tuple(map(jnp.asarray, (QUERY, KEY, VALUE)))
    all_close(output_and_gradients(sharded, *inputs), output_and_gradients(whole, *inputs), 1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_hessian_vector_products(implementation):
    forward, reverse = hessian_vector_products(implementation)
    expected, _ = hessian_vector_products("dense")
    close(forward, expected, 1e-5)
    close(reverse, expected, 1e-5)


@functools.cache
def hessian_vector_products(implementation):
    """Of the sum of squares of the output, forward over reverse and reverse over reverse."""
    run = attend(implementation, causal="top_left", score="cosine")
    gradient = jax.grad(lambda query: jnp.sum(run(query, KEY, VALUE) ** 2))

    @jax.jit
    def both(query, vector):
        forward = jax.jvp(gradient, (query,), (vector,))[1]
        return forward, jax.grad(lambda query: jnp.vdot(gradient(query), vector))(query)

    return both(QUERY, QUERY[::-1])


def test_forward_mode():
    def run(query, implementation):
        return attend(implementation, causal="top_left")(query, KEY, VALUE)

    @functools.partial(jax.jit, static_argnums=0)
    def tangents_of(implementation, query, tangent):
        pushed = functools.partial(run, implementation=implementation)
        columns = jax.vmap(lambda tangent: jax.jvp(pushed, (query,), (tangent,))[1])(jnp.stack([tangent, -2 * tangent]))
        return jax.jvp(pushed, (query,), (tangent,))[1], columns, jax.linearize(pushed, query)[1](tangent)

    tangent = jnp.asarray(QUERY[::-1])
    expected = tangents_of("dense", QUERY, tangent)
    for implementation in ("chunked", "chunked_autodiff"):
        for found, other in zip(tangents_of(implementation, QUERY, tangent), expected, strict=True):
            close(found, other, 1e-5)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["scaled_dot", "additive"]), st.booleans())
@settings(max_examples=6, deadline=None, derandomize=True)
def test_any_block_size_gives_the_same(queries, keys, score, masked):
    options = {"score": score, "mask": cases._MASK if masked else None, "dropout_rate": 0.2, "dropout_rng": cases.RNG}
    chunked = functools.partial(attn.attend, implementation="chunked", block=(queries, keys), **options)
    actuals = output_and_gradients(chunked, QUERY, KEY, VALUE)
    arrays = {"mask": options["mask"]} if masked else {}
    expected = compiled("dense", (QUERY, KEY, VALUE), {**arrays, "dropout_rng": cases.RNG}, score=score, dropout_rate=0.2)
    all_close(actuals, expected)


@given(st.permutations(range(S)))
@several
def test_permuting_keys_values_and_mask_together_changes_nothing(order):
    for implementation in IMPLEMENTATIONS:
        whole = compiled(implementation, (QUERY, KEY, VALUE), {"mask": cases._MASK})
        other = compiled(implementation, (QUERY, KEY[:, order], VALUE[:, order]), {"mask": cases._MASK[..., order]})
        close(other[0], whole[0])
        close(other[2], whole[2][:, np.array(order)])


@given(st.lists(st.integers(0, S), min_size=B, max_size=B))
@several
def test_four_ways_to_say_the_same_mask(lengths):
    allowed = np.arange(S) < np.array(lengths)[:, None]
    ways = (
        {"key_lengths": np.array(lengths)},
        {"mask": allowed[:, None, None]},
        {"bias": np.where(allowed, 0, -np.inf).astype(np.float32)[:, None, None]},
        {"query_segments": np.ones(T, int), "key_segments": allowed.astype(int)},
    )
    for implementation in ("dense", "chunked"):
        first, *others = (compiled(implementation, (QUERY, KEY, VALUE), way) for way in ways)
        for other in others:
            all_close(other, first)


@functools.partial(jax.jit, static_argnums=0)
def _value_gradient(implementation, query, head):
    run = attend(implementation, mask=cases._MASK)
    return jax.grad(lambda value: jnp.sum(run(QUERY, KEY, value)[:, query, head]))(jnp.asarray(VALUE))


@given(st.integers(0, T - 1), st.integers(0, N - 1))
@settings(max_examples=9, deadline=None, derandomize=True)
def test_the_gradients_receptive_field_is_the_mask(query, head):
    for implementation in IMPLEMENTATIONS:
        gradient = _value_gradient(implementation, query, head)
        support = np.any(np.asarray(gradient) != 0, axis=-1)[:, :, head // (N // cases.K)]
        np.testing.assert_array_equal(support, cases._MASK[:, 0, query])


@pytest.mark.parametrize("more", [0, 1, 4])
def test_more_masked_keys_change_no_output(more):
    padded = [np.concatenate([x, np.full((B, more, *x.shape[2:]), 9.0, np.float32)], axis=1) for x in (KEY, VALUE)]
    for implementation in IMPLEMENTATIONS:
        whole = attend(implementation)(QUERY, KEY, VALUE)
        close(jax.jit(attend(implementation, key_lengths=np.full(B, S)))(QUERY, *padded), whole)


@pytest.mark.parametrize("cut", [1, 3])
def test_decoding_in_pieces_is_one_causal_pass(cut):
    query, key, value = QUERY, KEY[:, :T], VALUE[:, :T]
    for implementation in IMPLEMENTATIONS:
        whole = attend(implementation, causal=True)(query, key, value)
        piece = jax.jit(attend(implementation, causal=True, query_positions=np.arange(cut, T)))(query[:, cut:], key, value)
        close(piece, whole[:, cut:])


@pytest.mark.parametrize("queries, keys, head_dim", [(2, 2, 2), (3, 3, 5), (3, 5, 7), (4, 3, 3), (7, 7, 7), (17, 3, 2)])
def test_tiny_sizes_do_not_end_the_process(queries, keys, head_dim):
    """XLA aborted on the products of the backward pass where every size is below 8."""
    rng = np.random.default_rng(0)
    inputs = [jnp.asarray(rng.normal(size=(B, n, 2, head_dim)), jnp.float32) for n in (queries, keys, keys)]

    @jax.jit
    def gradients(*inputs):
        runs = [functools.partial(attn.attend, implementation=implementation) for implementation in ("chunked", "dense")]
        return [jax.vjp(run, *inputs)[1](inputs[0]) for run in runs]

    all_close(*gradients(*inputs))


@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_window_that_leaves_only_the_last_tiles(left):
    """Decoding one query: what is left is not where the first tile is."""
    options = {"causal": "bottom_right", "window": (left, None)}
    expected = output_and_gradients(attend("dense", **options), QUERY[:, :1], KEY, VALUE)
    assert np.abs(expected[0]).max() > 0.1
    for implementation in IMPLEMENTATIONS[1:]:
        all_close(output_and_gradients(attend(implementation, **options), QUERY[:, :1], KEY, VALUE), expected)


def test_grouped_heads_are_repeated_keys():
    repeated = [np.repeat(x, N // cases.K, axis=2) for x in (KEY, VALUE)]
    for implementation in IMPLEMENTATIONS:
        close(attend(implementation)(QUERY, KEY, VALUE), jax.jit(attend(implementation))(QUERY, *repeated))


def test_unbatched_and_extra_batch_axes():
    for implementation in IMPLEMENTATIONS:
        bias = cases.random(1, N, 1, S)
        whole = jax.jit(attend(implementation, bias=bias))(QUERY, KEY, VALUE)
        close(jax.jit(attend(implementation, bias=bias[0]))(QUERY[1], KEY[1], VALUE[1]), whole[1])
        more = [np.stack([x, x + 1, x - 1]) for x in (QUERY, KEY, VALUE)]  # [3, B, ...]
        extra = jax.jit(attend(implementation, bias=bias[None], key_lengths=np.full((3, B), S)))(*more)
        close(extra[0], whole)


def test_the_second_call_with_the_same_shapes_compiles_nothing(caplog):
    table = jnp.asarray(cases.random(N, T + S - 1))

    def call(shift):
        moved = table + shift
        mod = lambda score, b, h, q, k: score + moved[h, k - q + T - 1]  # noqa: E731
        shifted = jnp.asarray(QUERY) + shift
        return attn.attend(shifted, KEY, VALUE, score_mod=mod, causal="top_left", score="additive").block_until_ready()

    call(0.5)
    with jax.log_compiles(True), caplog.at_level("WARNING"):
        call(0.25)
    assert not [record.getMessage() for record in caplog.records if "Compiling jit(_run)" in record.getMessage()]
    with jax.log_compiles(True), caplog.at_level("WARNING"):
        attn.attend(QUERY[:1], KEY[:1], VALUE[:1], causal="top_left", score="additive")
    assert [record for record in caplog.records if "Compiling jit(_run)" in record.getMessage()]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_query_or_no_key_is_no_error(implementation):
    for queries, keys in ((0, S), (T, 0)):
        inputs = (QUERY[:, :queries], KEY[:, :keys], VALUE[:, :keys])
        output, *gradients = output_and_gradients(attend(implementation, key_positions=np.arange(keys)), *inputs)
        assert output.shape == (B, queries, N, VALUE.shape[-1]) and not np.asarray(output).any()
        assert not any(np.asarray(gradient).any() for gradient in gradients)
    assert np.all(attn.attention_statistics(QUERY, KEY[:, :0], top_k=0).lse == -np.inf)


def test_scores_of_one_class_do_not_share_their_parameters():
    one, three = attn.scores.additive(jnp.ones(3)), attn.scores.additive(jnp.full(3, 3.0))
    expected = attn.attend(QUERY, KEY, VALUE, score=lambda q, k: 3 * jnp.sum(jnp.tanh(q + k)))
    assert np.abs(attn.attend(QUERY, KEY, VALUE, score=one) - expected).max() > 0.1
    close(attn.attend(QUERY, KEY, VALUE, score=three), expected)


def test_what_a_function_captured_is_never_stale():
    """Captured anew by the same function, inside of a compiled one, and in a derivative rule that is not printed."""
    table = [jnp.zeros(N)]
    again = lambda score, b, h, q, k: score * (1 + table[0][h])  # noqa: E731
    rules = []
    for factor in (0.0, 2.0):
        table[0] = jnp.full(N, factor)
        position = jnp.arange(S) * factor
        inside = jax.jit(lambda score, b, h, q, k, position=position: score + position[k])
        close(attn.attend(QUERY, KEY, VALUE, score_mod=again), attn.attend(QUERY, KEY, VALUE, scale=(1 + factor) / 3**0.5))
        close(attn.attend(QUERY, KEY, VALUE, score_mod=inside), attn.attend(QUERY, KEY, VALUE, bias=position[None, None, None]))
        backward = jax.custom_vjp(lambda score: score * 2)
        backward.defvjp(lambda score: (score * 2, None), lambda _, g, factor=factor: (g * factor,))
        forward = jax.custom_jvp(lambda score: score * 2)
        forward.defjvp(lambda primals, tangents, factor=factor: (primals[0] * 2, tangents[0] * factor))
        for rule in (backward, forward):
            mod = lambda score, b, h, q, k, rule=rule: rule(score)  # noqa: E731
            rules.append(jax.grad(lambda query, mod=mod: jnp.sum(attn.attend(query, KEY, VALUE, score_mod=mod) ** 2))(QUERY))
    zero, zero_too, plain, plain_too = rules  # of a rule with slope 0, and of one with the slope of the function, 2
    truth = jax.grad(lambda query: jnp.sum(attn.attend(query, KEY, VALUE, scale=2 / 3**0.5) ** 2))(QUERY)
    assert not np.asarray(zero).any() and not np.asarray(zero_too).any()
    close(plain, truth)
    close(plain_too, truth)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32"])
def test_positions_of_any_integer_type(dtype):
    query, key = (positions.astype(dtype) for positions in cases.POSITIONS)
    mod = attn.score_mods.alibi(N)
    options = {"causal": True, "score_mod": mod}
    expected = attn.attend(QUERY, KEY, VALUE, query_positions=cases.POSITIONS[0], key_positions=cases.POSITIONS[1], **options)
    close(attn.attend(QUERY, KEY, VALUE, query_positions=query, key_positions=key, **options), expected)


def test_positions_of_the_keys_alone():
    backwards = np.arange(S)[::-1]
    whole = attend("dense", causal=True, key_positions=backwards)(QUERY, KEY, VALUE)
    for implementation in IMPLEMENTATIONS[1:]:
        close(attend(implementation, causal=True, key_positions=backwards)(QUERY, KEY, VALUE), whole)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_padding_of_tiles_is_never_seen(implementation):
    """Scores and score_mods without a finite value or gradient at zero vectors or outside of their table."""
    options = {
        "score": lambda q, k: q @ k / jnp.linalg.norm(q) / jnp.linalg.norm(k),
        "score_mod": lambda score, b, h, q, k: score * jnp.sqrt(T - q) * jnp.sqrt(S - k),
    }
    for gradient in output_and_gradients(attend(implementation, **options), QUERY, KEY, VALUE):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_masked_nan_does_not_leak_into_what_a_score_mod_captured(implementation):
    key = KEY.copy()
    key[:, 4:] = np.nan

    @jax.jit
    @jax.grad
    def slope(factor, key):
        mod = lambda score, b, h, q, k: score * factor  # noqa: E731
        return jnp.sum(attend(implementation, score_mod=mod, key_lengths=np.array([4, 3]))(QUERY, key, VALUE) ** 2)

    assert slope(1.5, key) == pytest.approx(float(slope(1.5, KEY)), rel=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_sink_of_minus_infinity_is_no_sink(implementation):
    lengths = {"key_lengths": np.array([0, 4])}

    def run(sink):
        output = attend(implementation, sink=sink, **lengths)(QUERY, KEY, VALUE)
        return jnp.sum(output), output

    gradient, output = jax.jit(jax.grad(run, has_aux=True))(jnp.full(N, -jnp.inf))
    close(output, jax.jit(attend(implementation, **lengths))(QUERY, KEY, VALUE))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[1:])
def test_large_scores_cost_no_more_digits_than_in_the_definition(implementation):
    """Where one weight is near 1, a gradient is what is left of a difference: weights from a log-sum-exp lose digits."""
    inputs = [np.random.default_rng(i).normal(size=(64, 2, 16)).astype(np.float32) for i in range(4)]

    def run(implementation, dtype):
        block = None if implementation == "dense" else 16
        call = functools.partial(attn.attend, scale=100.0, implementation=implementation, block=block)

        @jax.jit
        def both(query, key, value, cotangent):
            output, pull = jax.vjp(call, query, key, value)
            return output, *pull(cotangent)

        return [np.asarray(x, np.float64) for x in both(*(jnp.asarray(x, dtype) for x in inputs))]

    with jax.enable_x64(True):
        exact = run("dense", "float64")
    for truth, expected, found in zip(exact, run("dense", "float32"), run(implementation, "float32"), strict=True):
        assert np.abs(found - truth).max() <= 1.5 * np.abs(expected - truth).max()
