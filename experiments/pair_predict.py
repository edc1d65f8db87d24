"""Decodes a target for each line of a file, and says which tokens of the line each token of the target looked at."""

import functools
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attn import viewer
from attn.models.seq2seq import beam, greedy
from experiments.data.pair_tokenizer import END, PairTokenizer, Source
from experiments.errors import UsageError, printable
from experiments.storage.run_folder import Run

BATCH_SIZE = 16


class Answer(NamedTuple):
    """What a model makes of one source.

    Attributes:
      source: The source as the model reads it.
      targets: Of each target, the best first: its ids, without the end if it has one, and its log-probability in nats.
      ended: Whether the best one has an end; otherwise it was cut off at the longest length of training.
      maps: Of the best one, by the name of the layer and the head: its weights over the source, float32 `[U, S]`.
    """

    source: Source
    targets: list[tuple[list[int], float]]
    ended: bool
    maps: dict[str, np.ndarray]


def answers(
    run: Run, lines: Iterable[bytes], width: int = 1, penalty: float = 0.0, batch_size: int = BATCH_SIZE
) -> Iterator[Answer]:
    """Decodes.

    Args:
      run: A run of pairs.
      lines: The sources, of any length; of one that is longer than the model reads, the part that training would keep is read.
      width: The beam; 1 is greedy decoding.
      penalty: The length penalty of the beam.
      batch_size: The number of sources that are computed together.

    Raises:
      UsageError: A line has no token. The lines before it are answered.
    """
    programs = _programs(run, width)
    numbered = enumerate(lines, start=1)
    while batch := [(number, line.decode(errors="replace").rstrip("\r\n")) for number, line in islice(numbered, batch_size)]:
        read = [run.tokenizer.source(text) for _, text in batch]
        empty = next((i for i, source in enumerate(read) if not source.ids), None)
        known = read[:empty]
        filled = np.zeros((batch_size, run.tokenizer.max_length), np.int32)  # of one shape, so that there is one compilation
        filled[: len(known)] = run.tokenizer.pad([source.ids for source in known])
        tokens, totals = map(np.asarray, programs.decode(filled, penalty))
        yield from _answered(run.tokenizer, known, tokens, totals, programs, filled)
        if empty is not None:
            raise UsageError(f"line {batch[empty][0]} is empty: a source must have at least one token")


def line_of(run: Run, answer: Answer, show_text: bool = False, every: bool = False) -> str:
    """Returns an answer as JSON: `output`, its `log_probability`, the `tokens` that were read of the source, `left_out` and
    `out_of_vocabulary` among them, `ended: false` if it has no end; if asked for, all targets of the `beam`, and the `text`."""
    ids, log_probability = answer.targets[0]
    said: dict[str, Any] = {
        "output": run.tokenizer.text(ids),
        "log_probability": round(log_probability, 6),
        "tokens": len(answer.source.ids),
        "out_of_vocabulary": answer.source.unknown,
    }
    if answer.source.left_out:
        said["left_out"] = answer.source.left_out
    if not answer.ended:
        said["ended"] = False
    if every:
        said["beam"] = [{"output": run.tokenizer.text(ids), "log_probability": round(p, 6)} for ids, p in answer.targets]
    if show_text:
        said["text"] = printable(("" if run.tokenizer.unit == "character" else " ").join(answer.source.shown)[:60])
    return json.dumps(said, ensure_ascii=False)


def check_maps(run: Run, layer: int | None = None, head: int | None = None) -> None:
    """Checks that a run has maps to draw, and one of a layer and a head. Raises UsageError otherwise."""
    if "score" in run.config.model and run.config.model.score == "none":
        raise UsageError("the model has no attention (config.model.score=none): there is no alignment to draw")
    layers, heads = _decoder(run)
    for flag, index, count, what in (("layer", layer, layers, "layers"), ("head", head, heads, "heads of each layer")):
        if index is not None and not 0 <= index < count:
            raise UsageError(
                f"--{flag}={index} must be an integer from 0 to {count - 1}: the {what} of the decoder are {count}"
            )


def alignment(run: Run, answer: Answer, layer: int | None = None, head: int | None = None) -> viewer.Alignment:
    """Returns the alignment of the best target.

    Args:
      run: The run, of which `check_maps` has been asked.
      answer: Its answer.
      layer, head: Those whose map is shown first; None: the last layer, and the mean of its heads.

    Raises:
      UsageError: The target has no token.
    """
    ids, _ = answer.targets[0]
    target = run.tokenizer.tokens(ids)
    if not target:
        raise UsageError("the output is empty: there is no alignment to draw")
    config = run.config.model
    kind = f"encoder of {config.encoder_cell} cells, score {config.score}" if "score" in config else "transformer"
    notes = [f"A model of pairs of texts ({kind}), trained on {run.config.data.name}."]
    if answer.source.left_out:
        kept = {"last": "the last", "first": "the first", "ends": "from both ends"}[run.tokenizer.keep]
        notes.append(
            f"The source is longer than the model reads: {kept} {len(answer.source.ids)} tokens are kept, as in training, and "
            f"{answer.source.left_out} others are left out."
        )
    if answer.source.unknown:
        notes.append(f"Tokens that are not in the vocabulary, and have one id together: {answer.source.unknown}.")
    layers, heads = _decoder(run)
    first = _name(layers - 1 if layer is None else layer, head if heads > 1 else None)
    maps = {"weights": answer.maps[first]} if len(answer.maps) == 1 else {first: answer.maps[first]} | answer.maps
    return viewer.align(answer.source.shown, target, maps, title=run.tokenizer.text(ids), notes=notes)


def _decoder(run: Run) -> tuple[int, int]:
    """Returns the number of layers of the decoder that attend to the source, and of their heads."""
    config = run.config.model
    return (1, 1) if "score" in config else (config.num_layers, config.num_heads)


class _Programs(NamedTuple):
    decode: Any  # sources [B, S] and a penalty to tokens [B, W, U] and log-probabilities [B, W]
    align: Any  # sources [B, S] and targets [B, U] to the weights of each layer [B, N, U, S]


@functools.lru_cache(maxsize=4)
def _compiled(model: Any, length: int, width: int) -> _Programs:
    def decode(params: Any, sources: jax.Array, penalty: Any) -> Any:
        if width == 1:
            return jax.tree.map(lambda x: x[:, None], greedy(model, params, sources, length))
        return jax.vmap(lambda source: beam(model, params, source, length, width, penalty))(sources)

    def align(params: Any, sources: jax.Array, targets: jax.Array) -> Any:
        return model.apply({"params": params}, sources, targets, method="alignment")

    return _Programs(jax.jit(decode), jax.jit(align))


def _programs(run: Run, width: int) -> _Programs:
    found, params = _compiled(run.model, run.tokenizer.target_length, width), run.params
    return _Programs(
        lambda sources, penalty: found.decode(params, jnp.asarray(sources), penalty),
        lambda sources, targets: found.align(params, jnp.asarray(sources), jnp.asarray(targets)),
    )


def _answered(
    tokenizer: PairTokenizer,
    read: list[Source],
    tokens: np.ndarray,
    totals: np.ndarray,
    programs: _Programs,
    filled: np.ndarray,
) -> Iterator[Answer]:
    layers = [np.asarray(weights) for weights in programs.align(filled, tokens[:, 0])]
    for index, source in enumerate(read):
        rows = [row[row > 0].tolist() for row in tokens[index]]
        targets = [
            ([i for i in row if i != END], float(total))
            for row, total in zip(rows, totals[index], strict=True)
            if np.isfinite(total)
        ]
        size = len(targets[0][0]), len(source.ids)
        maps = _maps([weights[index, :, : size[0], : size[1]] for weights in layers])
        yield Answer(source, targets, END in rows[0], maps)


def _maps(layers: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the maps of all layers and heads by their names, that of the last layer's mean first."""
    found = {}
    for index in reversed(range(len(layers))):
        found[_name(index, None)] = layers[index].mean(0)
        if len(layers[index]) > 1:
            found |= {_name(index, head): weights for head, weights in enumerate(layers[index])}
    return found


def _name(layer: int, head: int | None) -> str:
    return f"layer {layer}, {'mean of the heads' if head is None else f'head {head}'}"
