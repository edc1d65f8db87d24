"""The shapes in the signatures of `attn`, checked at run time by jaxtyping's import hook in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOOK = """
import attn.kernels.inputs, attn.scores  # pytrees, which JAX itself fills with what are no arrays
from jaxtyping import install_import_hook
install_import_hook("attn", "beartype.beartype")
import jax, jax.numpy as jnp
import attn
from attn.layers import keras
from attn.models.classifier import Classifier
from experiments import settings

def zeros(*shape):
    return jnp.zeros(shape)

"""
SOUND = """
T, S, N, H, V = 5, 7, 2, 3, 4
for batch in ((), (6,), (6, 8)):
    q, k, v = zeros(*batch, T, N, H), zeros(*batch, S, N, H), zeros(*batch, S, N, V)
    for mask in (None, jnp.ones((*(1 for _ in batch), N, 1, S), bool)):
        for implementation in ("dense", "chunked", "chunked_autodiff"):
            for score in ("dot", "additive"):
                options = dict(mask=mask, score=score, implementation=implementation)
                jax.eval_shape(jax.grad(lambda q: attn.attend(q, k, v, **options).sum()), q)
        jax.eval_shape(jax.grad(lambda q: attn.attend_pooled(q, k, v, mask=mask).sum()), q)
        jax.eval_shape(lambda q: attn.attention_weights(q, k, mask=mask), q)
        lse = jax.eval_shape(lambda q: attn.attention_statistics(q, k, v, mask=mask, top_k=3), q).lse
        parts = [jnp.zeros((*batch, T, N, V))] * 2
        jax.eval_shape(lambda: attn.merge_attention(parts, [jnp.zeros(lse.shape)] * 2, sink=zeros(N)))
for page in settings.MODELS:
    config = settings.load_page(page, "imdb")
    for config.model.mask_padding in (False, True):
        model = Classifier(settings.model_config(config, vocabulary_size=30, max_length=9))
        for tokens in (jnp.ones(9, int), jnp.ones((4, 9), int)):
            jax.eval_shape(model.init, jax.random.key(0), tokens)
"""
WRONG = {
    "key and value lengths": "attn.attend(zeros(5, 2, 3), zeros(7, 2, 3), zeros(8, 2, 4))",
    "bias rank": "attn.attend(zeros(5, 2, 3), zeros(7, 2, 3), zeros(7, 2, 4), bias=zeros(5, 7))",
    "mask dtype": "attn.attend(zeros(5, 2, 3), zeros(7, 2, 3), zeros(7, 2, 4), mask=zeros(2, 5, 7))",
    "float tokens": "keras.TokenAndPositionEmbedding(30, 4).init(jax.random.key(0), zeros(4, 9))",
}


EACH = """
import json, sys, traceback
raised = {}
for name, code in json.load(sys.stdin).items():
    try:
        exec(code)
        raised[name] = ""
    except Exception:
        raised[name] = traceback.format_exc()
json.dump(raised, sys.stdout)
"""


@pytest.fixture(scope="module")
def raised() -> dict[str, str]:
    """The traceback of each piece of code, all run in one process under the hook."""
    pieces = json.dumps({"sound": SOUND, **WRONG})
    command = [sys.executable, "-c", HOOK + EACH]
    finished = subprocess.run(command, cwd=ROOT, input=pieces, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_every_kernel_and_model_keeps_the_shapes_of_its_signature(raised):
    assert raised["sound"] == ""


@pytest.mark.parametrize("wrong", WRONG)
def test_the_hook_would_see_a_wrong_shape(wrong, raised):
    assert "TypeCheckError" in raised[wrong]
