"""What `attn.explain` answers for ten calls: which implementation runs on this machine, and what rules out each of the others.

python scripts/explain_attention.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

import attn

QUERY = jnp.zeros((2, 1_024, 8, 64))
KEY = VALUE = jnp.zeros((2, 1_024, 2, 64))
HALF = [x.astype(jnp.bfloat16) for x in (QUERY, KEY, VALUE)]
CALLS = {
    "": {},
    "causal=True": {"causal": True},
    "causal=True, window=(255, None)": {"causal": True, "window": (255, None)},
    'score="additive"': {"score": "additive"},
    "score_mod=attn.score_mods.alibi(8)": {"score_mod": attn.score_mods.alibi(8)},
    "key_lengths=[700, 1024]": {"key_lengths": jnp.array([700, 1_024])},
    "dropout_rate=0.1, dropout_rng=rng": {"dropout_rate": 0.1, "dropout_rng": jax.random.key(0)},
    'normalizer="sigmoid", block=128': {"normalizer": "sigmoid", "block": 128},
    'normalizer="entmax15"': {"normalizer": "entmax15"},
    'implementation="chunked_autodiff"': {"implementation": "chunked_autodiff"},
}


def main() -> None:
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; query {QUERY.shape}, key and value {KEY.shape}, float32")
    for name, options in CALLS.items():
        print(f"\nattn.explain(query, key, value{', ' if name else ''}{name})\n{attn.explain(QUERY, KEY, VALUE, **options)}")
    print(f"\nthe first call in bfloat16\n{attn.explain(*HALF)}")


if __name__ == "__main__":
    main()
