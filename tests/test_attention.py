"""Both kernels against the oracle: values, gradients, masks, dtypes and transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import attn

T, S, N, H, V = 5, 7, 2, 3, 4
IMPLEMENTATIONS = ("dense", "dense_vjp")
MASKS = {
    "none": None,
    "keys": np.array([True, True, False, True, False, True, True])[None, None, :],
    "causal": np.tril(np.ones((T, S), bool))[None],
    "heads": np.random.default_rng(1).random((N, T, S)) < 0.5,
    "empty rows": np.concatenate([np.zeros((1, 2, S), bool), np.ones((1, T - 2, S), bool)], axis=1),
    "nothing": np.zeros((1, 1, S), bool),
}


def arrays(dtype="float32", seed=0):
    """query, key, value, and a cotangent of the output."""
    rng = np.random.default_rng(seed)
    shapes = (T, N, H), (S, N, H), (S, N, V), (T, N, V)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def relative(actual, expected):
    """The largest difference over the largest entry."""
    return np.abs(np.asarray(actual, np.float64) - expected).max() / max(np.abs(expected).max(), 1e-300)


def test_oracle_gradients_are_those_of_finite_differences():
    query, key, value, cotangent = (np.asarray(x, np.float64) for x in arrays())
    mask = MASKS["heads"]
    analytic = oracle.gradients(query, key, value, cotangent, mask, 0.7)
    for index, x in enumerate((query, key, value)):
        direction = np.random.default_rng(index).normal(size=x.shape)

        def loss(step, index=index, direction=direction):
            inputs = [query, key, value]
            inputs[index] = inputs[index] + step * direction
            return (oracle.attention(*inputs, mask, 0.7)[0] * cotangent).sum()

        assert (loss(1e-5) - loss(-1e-5)) / 2e-5 == pytest.approx((analytic[index] * direction).sum(), rel=1e-8)


@pytest.mark.parametrize("dtype, value_tolerance, gradient_tolerance", [("float32", 2e-6, 1e-5), ("float64", 1e-12, 1e-12)])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_values_and_gradients_are_the_oracles(implementation, mask, dtype, value_tolerance, gradient_tolerance):
    with jax.enable_x64(dtype == "float64"), jax.debug_nans(True):
        query, key, value, cotangent = arrays(dtype)
        allowed = None if MASKS[mask] is None else jnp.asarray(MASKS[mask])
        scale = jnp.asarray(0.7, dtype)

        def loss(query, key, value, scale):
            output = attn.attend(query, key, value, mask=allowed, scale=scale, implementation=implementation)
            return jnp.sum(output * cotangent), output

        gradients, output = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(query, key, value, scale)
    assert output.dtype == dtype
    scale = float(scale)
    assert relative(output, oracle.attention(query, key, value, MASKS[mask], scale)[0]) <= value_tolerance
    for actual, expected in zip(gradients, oracle.gradients(query, key, value, cotangent, MASKS[mask], scale), strict=True):
        assert relative(actual, np.asarray(expected)) <= gradient_tolerance


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_no_query_may_attend_to_never_leaks(implementation, poison):
    query, key, value, cotangent = arrays()
    hidden = ~MASKS["keys"][0, 0]
    poisoned_key, poisoned_value = key.at[hidden].set(poison), value.at[hidden].set(poison)

    @jax.jit
    def run(key, value):
        def output(query, key, value):
            return attn.attend(query, key, value, mask=jnp.asarray(MASKS["keys"]), implementation=implementation)

        result, pullback = jax.vjp(output, query, key, value)
        return result, *pullback(jnp.asarray(cotangent))

    for clean, poisoned in zip(run(key, value), run(poisoned_key, poisoned_value), strict=True):
        np.testing.assert_array_equal(clean, poisoned)


def test_weights_are_the_oracles_and_empty_rows_are_zero():
    query, key, value, _ = arrays()
    for mask in MASKS.values():
        weights = attn.attention_weights(query, key, mask=None if mask is None else jnp.asarray(mask))
        assert relative(weights, oracle.attention(query, key, value, mask)[1]) <= 2e-6


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_scores_are_float32_and_the_output_is_bfloat16(implementation):
    query, key, value, _ = arrays("bfloat16")
    output = attn.attend(query, key, value, implementation=implementation)
    assert output.dtype == jnp.bfloat16
    exact = oracle.attention(query, key, value)[0]
    assert relative(output, exact) < 2**-8  # one rounding, of the output; bfloat16 scores would be off by 2e-2


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_batch_axes_and_transforms_change_nothing(implementation):
    attend = functools.partial(attn.attend, implementation=implementation)
    batch = [jnp.stack([arrays(seed=b)[i] for b in range(6)]).reshape(2, 3, *arrays()[i].shape) for i in range(3)]
    expected = jnp.stack([attend(*(x[i, j] for x in batch)) for i in range(2) for j in range(3)]).reshape(2, 3, T, N, V)
    for lifted in (attend, jax.jit(attend), jax.vmap(jax.vmap(attend)), jax.jit(jax.vmap(attend)), jax.checkpoint(attend)):
        assert relative(lifted(*batch), np.asarray(expected, np.float64)) <= 1e-6


def test_forward_mode_and_second_derivatives_on_the_definition():
    query, key, value, cotangent = arrays()

    def loss(query):
        return jnp.sum(attn.attend(query, key, value, implementation="dense") * cotangent)

    tangent = arrays(seed=3)[0]
    assert jax.jvp(loss, (query,), (tangent,))[1] == pytest.approx(float(jnp.sum(jax.grad(loss)(query) * tangent)), rel=1e-5)
    both = jax.jvp(jax.grad(loss), (query,), (tangent,))[1]
    fast = jax.jvp(
        jax.grad(lambda q: jnp.sum(attn.attend(q, key, value, implementation="dense_vjp") * cotangent)), (query,), (tangent,)
    )[1]
    assert relative(fast, np.asarray(both, np.float64)) <= 1e-5


def test_the_two_kernels_are_two_programs():
    """What the equality above compares is not one kernel with itself: the text of their gradients differs."""
    inputs = arrays()[:3]
    texts = {
        str(jax.make_jaxpr(jax.grad(lambda q, i=i: jnp.sum(attn.attend(q, *inputs[1:], implementation=i))))(inputs[0]))
        for i in IMPLEMENTATIONS
    }
    assert len(texts) == 2


BAD = [
    ({"query": jnp.zeros((T, H))}, r"query \(5, 3\) and key \(7, 2, 3\) must both be"),
    ({"key": jnp.zeros((S, N + 1, H))}, r"query \(5, 2, 3\) and key \(7, 3, 3\) may differ in their length alone"),
    ({"key": jnp.zeros((S, N, H + 1))}, r"may differ in their length alone"),
    ({"value": jnp.zeros((S + 1, N, V))}, r"value \(8, 2, 4\) and key \(7, 2, 3\) differ before their last axis"),
    ({"mask": jnp.ones((N, T, S))}, r"mask is float32: it must be bool"),
    ({"mask": jnp.ones((T, S), bool)}, r"mask \(5, 7\) does not broadcast to the scores \(2, 5, 7\)"),
    ({"mask": jnp.ones((N, S, T), bool)}, r"mask \(2, 7, 5\) does not broadcast"),
    ({"implementation": "flash"}, r"implementation='flash' is none of \['auto', 'dense', 'dense_vjp'\]"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_bad_arguments_are_refused_in_one_line(change, message):
    query, key, value, _ = arrays()
    arguments = {"query": query, "key": key, "value": value} | change
    with pytest.raises(ValueError, match=message) as caught:
        attn.attend(**arguments)
    assert "\n" not in str(caught.value)
