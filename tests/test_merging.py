"""The log-sum-exp beside the output, and attention over parts of the keys merged to that over all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import CASES, COTANGENT, KEY, QUERY, RNG, TILE, VALUE, B, N, S, T, kept, random

import attn

pytestmark = pytest.mark.usefixtures("fast_compilation")

LENGTHS = np.array([0, 5])  # the first example has no key
ALLOWED = np.arange(S) < LENGTHS[:, None, None, None]
KERNELS = {"dense": {}, "chunked": {"block": TILE}, "chunked_autodiff": {"block": TILE}}
MASKS = {
    "plain": ({}, {}),
    "lengths": ({"key_lengths": LENGTHS}, {"allowed": ALLOWED}),
    "sink, mask": (
        {"mask": CASES["mask"].truth["allowed"], "sink": random(N)},
        {**CASES["mask"].truth, "parameters": {"sink": random(N)}},
    ),
    "dropout": ({"dropout_rate": 0.4, "dropout_rng": RNG}, {"kept": kept(0.4)}),
}


def of_lse(lse):
    """A function of the log-sum-exp that is finite for a query without a key, with a gradient that differs by row."""
    return jnp.sum(jnp.where(jnp.isfinite(lse), lse, 0) * random(B, N, T))


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_output_and_log_sum_exp_and_both_gradients(kernel, name):
    options, truth = MASKS[name]
    run = functools.partial(attn.attend_with_lse, implementation=kernel, **KERNELS[kernel], **options)

    @jax.jit
    def everything(query, key, value):
        total = lambda *x: jnp.sum((y := run(*x))[0] * COTANGENT) + of_lse(y[1])  # noqa: E731
        return run(query, key, value), jax.grad(total, (0, 1, 2))(query, key, value)

    (output, lse), gradients = everything(QUERY, KEY, VALUE)
    expected = oracle.attend(QUERY, KEY, VALUE, COTANGENT, **truth)
    np.testing.assert_allclose(output, expected.output, atol=2e-6)
    np.testing.assert_allclose(lse, expected.lse, atol=2e-6)
    # ∂lse/∂logits are the weights without a sink, so its gradient is that of attention over values that are the score's own.
    bare = (
        oracle.attend(QUERY, KEY, VALUE, **{k: v for k, v in truth.items() if k == "allowed"}).weights
        * random(B, N, T)[..., None]
    )
    grouped = bare.reshape(B, KEY.shape[2], -1, T, S)
    by_query = np.einsum("bkrts,bskh->btkrh", grouped, KEY).reshape(QUERY.shape) / np.sqrt(QUERY.shape[-1])
    by_key = np.einsum("bkrts,btkrh->bskh", grouped, QUERY.reshape(B, T, KEY.shape[2], -1, QUERY.shape[-1])) / np.sqrt(
        QUERY.shape[-1]
    )
    for mine, name, more in zip(gradients, ("query", "key", "value"), (by_query, by_key, 0), strict=True):
        np.testing.assert_allclose(mine, expected.gradients[name] + more, atol=5e-6)


def test_the_output_has_the_bits_of_attend():
    for kernel, block in KERNELS.items():
        output, _ = attn.attend_with_lse(QUERY, KEY, VALUE, implementation=kernel, causal="bottom_right", **block)
        np.testing.assert_array_equal(
            output, attn.attend(QUERY, KEY, VALUE, implementation=kernel, causal="bottom_right", **block)
        )
    half = [jnp.asarray(x, jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
    output, lse = attn.attend_with_lse(*half)
    assert (output.dtype, lse.dtype) == (jnp.bfloat16, jnp.float32)


def test_under_vmap_and_forward_mode():
    batched = jax.vmap(functools.partial(attn.attend_with_lse, causal="top_left"))(QUERY, KEY, VALUE)
    plain = attn.attend_with_lse(QUERY, KEY, VALUE, causal="top_left")
    for mine, expected in zip(batched, plain, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-6)
    run = functools.partial(attn.attend_with_lse, key=KEY, value=VALUE, key_lengths=LENGTHS)
    tangent = random(*QUERY.shape)
    _, (of_output, of_row) = jax.jvp(functools.partial(run, implementation="chunked_autodiff"), (QUERY,), (tangent,))
    _, pull = jax.vjp(run, QUERY)
    (pulled,) = pull((jnp.asarray(COTANGENT), jnp.asarray(random(B, N, T))))
    np.testing.assert_allclose(
        jnp.sum(of_output * COTANGENT) + jnp.sum(of_row * random(B, N, T)), jnp.sum(pulled * tangent), rtol=1e-4
    )


def test_nothing_to_attend_to():
    for shape in ((0, S), (B, 0)):
        output, lse = attn.attend_with_lse(QUERY[: shape[0]], KEY[: shape[0], : shape[1]], VALUE[: shape[0], : shape[1]])
        assert output.shape == (shape[0], T, N, VALUE.shape[-1]) and not np.any(output)
        assert lse.shape == (shape[0], N, T) and np.all(lse == -np.inf)


def test_refusals():
    for kernel, message in (("fused", "implementation='fused' returns no log-sum-exp"), ("dens", "did you mean 'dense'")):
        with pytest.raises(ValueError, match=message):
            attn.attend_with_lse(QUERY, KEY, VALUE, implementation=kernel)
    with pytest.raises(ValueError, match="normalizer='sigmoid' has no log-sum-exp"):
        attn.attend_with_lse(QUERY, KEY, VALUE, normalizer="sigmoid")
    with pytest.raises(TypeError, match=r"attend_with_lse\(\) has no argument 'casual'; did you mean 'causal'"):
        attn.attend_with_lse(QUERY, KEY, VALUE, casual=True)
    with pytest.raises(ValueError, match=r"sink \(2,\) must be one logit for each head"):
        attn.merge_attention([QUERY], [np.zeros((B, N, T))], np.zeros(2))


def two_parts(query, key, value, sink=None):
    parts = []
    for start, end in ((0, 3), (3, S)):
        options = {"key_lengths": np.clip(LENGTHS - start, 0, end - start)} | ({} if sink is None else {"sink": sink})
        parts.append(attn.attend_with_lse(query, key[:, start:end], value[:, start:end], **options))
    return attn.merge_attention(*zip(*parts, strict=True), sink)


def ring(query, key, value):
    """One key after the other, as devices in a ring pass them on."""

    def step(carry, part):
        output, lse, start = carry
        new, new_lse = attn.attend_with_lse(query, *part, key_lengths=jnp.clip(LENGTHS - start, 0, 1))
        return (attn.merge_attention([output, new], [lse, new_lse]), jnp.logaddexp(lse, new_lse), start + 1), None

    nothing = jnp.zeros((B, T, N, value.shape[-1])), jnp.full((B, N, T), -jnp.inf), jnp.int32(0)
    (output, *_), _ = jax.lax.scan(step, nothing, [jnp.moveaxis(x[:, :, None], 1, 0) for x in (key, value)])
    return output


LOWEST = np.array([-np.inf, 0.5, -0.3, 0.1], np.float32)


@pytest.mark.parametrize(
    ("merged", "sink"),
    [(two_parts, None), (ring, None), (two_parts, random(N)), (two_parts, LOWEST)],
    ids=["parts", "ring", "sink", "-inf"],
)
def test_merged_parts_have_the_values_and_gradients_of_the_whole(merged, sink):
    """The first example has no key in any part: its output and all its gradients are 0."""
    arrays = [QUERY, KEY, VALUE, *([] if sink is None else [sink])]
    output, pull = jax.vjp(jax.jit(merged), *arrays)
    gradients = pull(jnp.asarray(COTANGENT))
    parameters = {} if sink is None else {"sink": np.maximum(sink, -1e30)}
    truth = oracle.attend(QUERY, KEY, VALUE, COTANGENT, allowed=ALLOWED, parameters=parameters)
    np.testing.assert_allclose(output, truth.output, atol=2e-6)
    for gradient, name in zip(gradients, ("query", "key", "value", "sink"), strict=False):
        np.testing.assert_allclose(gradient, truth.gradients[name], atol=5e-6, err_msg=name)


def test_the_gradient_of_the_log_sum_exps_alone():
    """By hand: two parts with outputs 1 and 3 and equal shares have d/d lse = (1 − 2) / 2 and (3 − 2) / 2."""
    one, rows = np.ones((1, 1, 1, 1), np.float32), np.array([[[0.7]]], np.float32)
    gradient = jax.grad(lambda lses: jnp.sum(attn.merge_attention([one, 3 * one], lses)))([rows, rows])
    np.testing.assert_allclose(np.ravel(gradient), [-0.5, 0.5], atol=1e-6)
    nothing = np.full_like(rows, -np.inf)
    merged, pull = jax.vjp(lambda *lses: attn.merge_attention([0 * one, 0 * one], lses), nothing, nothing)
    assert [x.item() for x in (merged, *pull(merged + 1))] == [0, 0, 0]
    first, second = jax.grad(lambda lses: jnp.sum(attn.merge_attention([one, 3 * one], lses)))([nothing, rows])
    assert (first.item(), second.item()) == (0, 0)
