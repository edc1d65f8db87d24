"""Records the outputs and scores of Keras 2's attention layers, and the limits of its initialisers, for our tests.

    python scripts/keras2_answers.py     # writes tests/data/keras_2.npz; needs tf_keras and TensorFlow

Keras 2.11 itself needs Python 3.10 or older. `tf_keras` is Keras 2 as a separate package, and its attention layers and
initialisers are those of 2.11. The file has the inputs, and for each case the weights, outputs and scores, in float32.
"""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).resolve().parent.parent / "tests" / "data" / "keras_2.npz"
B, T, S, D = 2, 4, 5, 6  # Keras 2 takes the size of AdditiveAttention's scale from the value, so all inputs have size D
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dot": ("Attention", {"use_scale": True}),
    "concat": ("Attention", {"score_mode": "concat", "use_scale": True}),
    "additive": ("AdditiveAttention", {}),
    "multi_head": ("MultiHeadAttention", {"num_heads": 2, "key_dim": 3}),
    "multi_head_plain": (
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": 3, "value_dim": 5, "output_shape": 7, "use_bias": False},
    ),
}
VALUE_MASK = np.array([[True, False, True, True, False], [False] * S])  # the second example has no key to attend to
QUERY_MASK = np.array([[True, True, False, True], [True, False, True, True]])
MASKS: dict[str, dict[str, Any]] = {
    "unmasked": {},
    "masked": {"query_mask": QUERY_MASK, "value_mask": VALUE_MASK},
    "causal": {"value_mask": VALUE_MASK, "use_causal_mask": True},
}


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras: Any = importlib.import_module("tf_keras")
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape) for name, shape in (("query", (B, T, D)), ("value", (B, S, D)), ("key", (B, S, D)))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    inputs = [arrays[name] for name in ("query", "value", "key")]
    for name, (kind, options) in LAYERS.items():
        layer = getattr(keras.layers, kind)(**options)
        layer(*inputs) if "num_heads" in options else layer(inputs)
        layer.set_weights([(0.5 * rng.normal(size=w.shape)).astype(np.float32) for w in layer.get_weights()])
        arrays |= {f"{name}/weights/{i}": weight for i, weight in enumerate(layer.get_weights())}
        for masks, chosen in MASKS.items():
            output, scores = _call(layer, inputs, chosen)
            arrays |= {f"{name}/{masks}/output": output.numpy(), f"{name}/{masks}/scores": scores.numpy()}
    arrays["limits"] = _limits(keras)
    arrays["version"] = np.array(keras.__version__)
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, allow_pickle=False, **arrays)
    print(f"{FILE.name}: {len(arrays)} arrays, {FILE.stat().st_size:,} bytes, tf_keras {keras.__version__}")


def _call(layer: Any, inputs: list[np.ndarray], masks: dict[str, Any]) -> Any:
    """Calls a layer. Attention takes its padding masks as a list; MultiHeadAttention takes one mask of pairs `[B, T, S]`."""
    causal = masks.get("use_causal_mask", False)
    query_mask, value_mask = masks.get("query_mask"), masks.get("value_mask")
    if not hasattr(layer, "_num_heads"):
        mask = None if value_mask is None else [query_mask, value_mask]
        return layer(inputs, mask=mask, use_causal_mask=causal, return_attention_scores=True)
    pairs = None if value_mask is None else np.broadcast_to(value_mask[:, None], (B, T, S))
    if pairs is not None and query_mask is not None:
        pairs = pairs & query_mask[:, :, None]
    return layer(*inputs, attention_mask=pairs, use_causal_mask=causal, return_attention_scores=True)


def _limits(keras: Any) -> np.ndarray:
    """The largest absolute query, output and embedding weights over 200 seeds, for D = 16 and 2 heads of 16 channels."""
    largest = np.zeros(3)
    for seed in range(200):
        keras.utils.set_random_seed(seed)
        layer, table = keras.layers.MultiHeadAttention(2, 16), keras.layers.Embedding(50, 16)
        layer(np.zeros((1, 2, 16), np.float32), np.zeros((1, 2, 16), np.float32))
        table(np.zeros((1, 1), np.int32))
        weights = layer.get_weights()
        largest = np.maximum(largest, [np.abs(w).max() for w in (weights[0], weights[6], table.get_weights()[0])])
    return largest


if __name__ == "__main__":
    main()
