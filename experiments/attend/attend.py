"""Makes the page of what a run's classifier attends to in one text."""

from collections.abc import Sequence

import jax
import numpy as np

from attn import viewer
from attn.models.classifier import WITH_ATTENTION, WITHOUT_ATTENTION, Classifier
from experiments.attend import live as live_model
from experiments.attend import weights, words
from experiments.errors import UsageError, printable
from experiments.storage.run_folder import Run

_NAMED = 8  # words that are dropped, by their names
_KEPT = {"last": "the last", "first": "the first", "ends": "from both ends"}


def page(
    run: Run,
    text: bytes,
    *,
    queries: Sequence[int] = (),
    layer: int = 0,
    head: int | None = None,
    live: bool = False,
    float32: bool = False,
) -> viewer.Page:
    """Makes the page.

    Args:
      run: A run.
      text: The text: any bytes.
      queries: The tokens whose weights are stored in full even if the text is long.
      layer, head: What is shown first; head None is the mean.
      live: Whether the classifier itself is put into the page.
      float32: Whether its parameters are stored as float32, and not as float16.

    Raises:
      UsageError: The model has no attention or cannot run in a page, no word of the text is known, or an index is out of
        range.
    """
    config = run.model.config
    if not isinstance(run.model, Classifier):
        raise UsageError(f"attend shows models over words: model.body={config.body} weighs n-grams, one query a text")
    if config.body in WITHOUT_ATTENTION:
        raise UsageError(
            f"config.model.body={config.body} has no attention to show: it must be one of {', '.join(WITH_ATTENTION)}"
        )
    _check(layer, config.num_layers, "--layer", "the layers of the model")
    _check(head or 0, config.num_heads, "--head", "the heads of each layer")
    told = words.read(text, run.tokenizer)
    if len(told.ids) < 2:
        raise UsageError(f"the text {_start(text)!r} has no word that the model knows: it must have at least one")
    ids = np.asarray(told.ids) if config.mask_padding else run.tokenizer.pad([told.ids])[0]
    padding = len(ids) - len(told.ids)
    for query in queries:
        _check(query, len(told.ids) + (padding > 0), "--queries", "the tokens of the page")
    model = live_model.export(run, float32) if live else None
    found = weights.read(run.model, run.params, ids)
    labels, notes = run.classes, _notes(run, told, padding)
    probabilities = np.asarray(jax.nn.softmax(found.logits))
    return viewer.show(
        [*told.shown, *["padding"] * padding],
        found.layers,
        title="What the model attends to",
        padding=padding,
        residual=config.body == "transformer",
        prediction=dict(zip(labels, map(float, probabilities), strict=True)),
        effect=found.effect,
        effect_of=f"the logit of {'the predicted class' if live else labels[int(found.logits.argmax())]}"
        + (" over the mean of the others" if len(labels) > 2 else " over the other"),
        queries=queries,
        layer=layer,
        head=head,
        notes=[_model_note(run), *(() if live else notes)],
        live=None if model is None else viewer.Live(text.decode(errors="replace"), model | {"labels": labels}, notes),
    )


def _check(index: int, count: int, flag: str, what: str) -> None:
    if not 0 <= index < count:
        raise UsageError(f"{flag}={index} must be an integer from 0 to {count - 1}: {what} are {count}")


def _start(text: bytes) -> str:
    return printable(text[:40].decode(errors="replace"))


def _model_note(run: Run) -> str:
    config = run.model.config
    heads = f"{config.num_layers} × {config.num_heads} heads, positions {config.positions}"
    return f"A model with the body {config.body}: {heads}, trained on {run.config.data.name}."


def _notes(run: Run, told: words.Words, padding: int) -> list[str]:
    """What is said of a text; `live.js` says the same of what is typed."""
    notes = []
    if told.left_out:
        notes.append(
            f"The text is longer than the model reads: {_KEPT[run.tokenizer.keep]} {len(told.ids)} tokens are kept, as in "
            f"training, and {told.left_out} others are left out."
        )
    if told.unknown:
        named = list(dict.fromkeys(told.unknown))
        names = ", ".join(named[:_NAMED]) + (", …" if len(named) > _NAMED else "")
        notes.append(f"Words that are dropped, because no training text has them: {len(told.unknown)} ({names}).")
    if told.rare:
        notes.append(f"Words that are too rare for the vocabulary, and have one id together: {told.rare}.")
    if padding:
        notes.append(f"The model also reads {padding} tokens of padding, and attends to them: it was trained without a mask.")
    return notes
