"""Decoding into a cache of fixed size that is filled in part: the same numbers as causal attention over the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn
from attn import score_mods
from attn.positions import rotary

pytestmark = pytest.mark.usefixtures("fast_compilation")

B, TOKENS, SIZE, N, K, H, V = 2, 7, 10, 4, 2, 6, 3
RANDOM = np.random.default_rng(3)
QUERY, KEY, VALUE = (jnp.asarray(RANDOM.normal(size=(B, TOKENS, *shape)), jnp.float32) for shape in ((N, H), (K, H), (K, V)))


def write(cache, new, lengths):
    """Writes the new rows of each example at its own length."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))(cache, new, lengths)


def decode(lengths_of, chunk, by, attend, **options):
    """The outputs of each example from its own start on, chunk by chunk, and how often the step was traced."""
    traces = []

    @jax.jit
    def step(cache, lengths, query, key, value):
        traces.append(1)
        at = lengths[:, None] + jnp.arange(chunk)
        cache = [write(old, new, lengths) for old, new in zip(cache, (rotary(key, at), value), strict=True)]
        alignment = {"causal": "bottom_right"} if by == "lengths" else {"causal": True, "query_positions": at}
        output = attend(rotary(query, at), *cache, key_lengths=lengths + chunk, **alignment, **options)
        return cache, output

    # What was in the cache before is NaN: nothing of it may be seen.
    cache = [jnp.full((B, SIZE, *x.shape[2:]), jnp.nan) for x in (KEY, VALUE)]
    start = jnp.zeros(B, jnp.int32)
    for index in range(B):  # the prompt of each example
        prompt = lengths_of[index]
        filled = [rotary(KEY[index, :prompt]), VALUE[index, :prompt]]
        cache = [old.at[index, :prompt].set(new) for old, new in zip(cache, filled, strict=True)]
        start = start.at[index].set(prompt)
    outputs = []
    for first in range(0, TOKENS - max(lengths_of) - chunk + 1, chunk):
        rows = [jnp.stack([x[b, n + first : n + first + chunk] for b, n in enumerate(lengths_of)]) for x in (QUERY, KEY, VALUE)]
        cache, output = step(cache, start + first, *rows)
        outputs.append(output)
    return jnp.concatenate(outputs, axis=1), len(traces)


@pytest.mark.parametrize(
    ("by", "chunk", "prompts", "options"),
    [
        ("lengths", 1, (0, 0), {}),
        ("positions", 1, (0, 0), {"implementation": "dense"}),
        ("lengths", 2, (3, 1), {"implementation": "chunked", "block": (2, 3)}),
        ("positions", 3, (1, 0), {"window": (2, 0), "implementation": "chunked", "block": (2, 3)}),
        ("lengths", 1, (2, 4), {"score_mod": score_mods.alibi(N), "window": (3, 0)}),
    ],
)
def test_steps_equal_causal_attention_over_the_whole(by, chunk, prompts, options):
    masks = {name: options[name] for name in ("score_mod", "window") if name in options}
    whole = attn.attend(rotary(QUERY), rotary(KEY), VALUE, causal=True, implementation="dense", **masks)
    steps, traces = decode(prompts, chunk, by, attn.attend, **options)
    assert traces == 1
    for row, prompt, expected in zip(steps, prompts, whole, strict=True):
        np.testing.assert_allclose(row, expected[prompt : prompt + len(row)], atol=2e-6)
