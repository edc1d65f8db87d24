"""The classifier of a run as data for `attn/viewer/live.js`, which computes its forward pass in the page."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attn.positions import rotary, sinusoidal
from attn.score_mods import alibi_slopes, t5_bucket
from attn.viewer import encoding
from experiments.data.tokenizer import KERAS, Tokenizer
from experiments.errors import UsageError
from experiments.storage.run_folder import Run

_MOST_PARAMETERS, _LONGEST = 4_000_000, 1024
_EXACT = 4  # rows: padding, start, rare words, and an id that Keras leaves unused
_LARGE = 4096  # entries of a parameter from which on 16 bits are worth it


def export(run: Run, float32: bool) -> dict[str, Any]:
    """Returns what the page needs to run the classifier: its sizes, words, parameters and tables of positions.

    Args:
      run: A run.
      float32: Whether all parameters are stored as float32. Otherwise those of large tables are 16-bit integers times the
        scale of their row, which is 16 times as near as float16: logits are within 1e-3.

    Raises:
      UsageError: The page could not compute what the model computes, or not while one types.
    """
    config = run.model.config
    arrays = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(run.params)}
    _check(config, arrays)
    _check_words(run.tokenizer)
    table = arrays.pop("relative_bias", None)
    params = [_param(name, array, float32) for name, array in arrays.items()]
    tables = _tables(config, table)
    words = b" ".join(run.tokenizer.words).decode("latin-1")  # a character stands for a byte
    return {
        "body": config.body,
        "layers": config.num_layers,
        "length": config.max_length,
        "masked": config.mask_padding,
        "vocabulary": config.vocabulary_size,
        "words": words,
        "params": [*params, *([f"={name}", array.shape, encoding.floats(array)] for name, array in tables.items())],
    }


def _check_words(tokenizer: Tokenizer) -> None:
    if tokenizer.rules != KERAS:
        raise UsageError("--live: data.lowercase and data.filters must be their defaults: the page splits words as Keras does")
    if tokenizer.keep != "last":
        raise UsageError(f"--live: data.keep={tokenizer.keep} must be last: the page reads the last tokens of a text")


def _check(config: Any, arrays: dict[str, np.ndarray]) -> None:
    count = sum(array.size for array in arrays.values())
    if config.dtype != "float32":
        raise UsageError(f"--live: model.dtype={config.dtype} must be float32: the page would compute other numbers")
    if count > _MOST_PARAMETERS:
        raise UsageError(f"--live: the model has {count} parameters: a page holds {_MOST_PARAMETERS} at most")
    if config.max_length > _LONGEST:
        raise UsageError(f"--live: max_length={config.max_length} must be {_LONGEST} at most: a page would be too slow")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UsageError("--live: a parameter of the model is not finite")


def _param(name: str, array: np.ndarray, float32: bool) -> list[Any]:
    """A parameter's name, shape and values. Of integers also the scale of each row, and the first rows as floats.

    Padding is the first row of the embeddings: a model without a mask reads it hundreds of times, so its error adds up.
    """
    if float32 or array.size <= _LARGE:
        return [name, array.shape, encoding.floats(array)]
    scale = np.abs(array).max(-1) / 32_767
    codes = np.rint(array / np.where(scale > 0, scale, 1)[..., None]).astype(np.int16)
    return [name, array.shape, encoding.text(codes), encoding.floats(scale), encoding.floats(array[:_EXACT])]


def _tables(config: Any, relative_bias: np.ndarray | None) -> dict[str, np.ndarray]:
    """What the positions add: a table to the embeddings, angles to queries and keys, or a bias `[N, 2 T − 1]` by distance."""
    length, kind = config.max_length, config.positions
    distance = np.arange(1 - length, length)
    if kind in ("sinusoidal", "sinusoidal_split"):
        return {"positions": np.asarray(sinusoidal(length, config.embed_dim, interleaved=kind == "sinusoidal"))}
    if kind == "rotary":
        ones = jnp.ones((length, 1, config.key_dim)).at[..., config.key_dim // 2 :].set(0)
        cos, sin = np.split(np.asarray(rotary(ones))[:, 0], 2, axis=-1)  # (1, 0) is turned to (cos, sin)
        return {"cos": cos, "sin": sin}
    if kind == "alibi":
        return {"bias": -alibi_slopes(config.num_heads)[:, None] * np.abs(distance)}
    if relative_bias is not None:
        return {"bias": relative_bias[np.asarray(t5_bucket(jnp.asarray(distance), len(relative_bias)))].T}
    return {}
