"""Which tokens a pronoun of the corpus `agreement` looks at, in runs that were trained on it.

    python scripts/agreement_attention.py runs/agreement

For each layer and head: in what share of the right test sentences the largest weight of the pronoun is that of its noun, and
the mean of this weight; the share in the wrong sentences; and the share of all tokens of the right ones whose largest weight is
that of this noun, which says whether the pronoun is different from other tokens.

What the answers owe to these weights is the accuracy on the right sentences without them: where the pronoun may not look at its
noun in a layer, where no token may, and where no token may look at the pronoun. Below is what "its" looks at in the example of
docs/viewer.md, which is in no split.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

import attn
import experiments
from attn.layers.keras.base import AttentionLayer
from experiments.attend import weights, words
from experiments.data import agreement
from experiments.data.agreement import Sentence
from experiments.report import tables
from experiments.storage.run_folder import Run

FORBIDDEN = -1e9  # added to a score
WITHOUT = {"pronoun to noun": ("pronoun", "noun"), "any to noun": ("any", "noun"), "any to pronoun": ("any", "pronoun")}


class Read(NamedTuple):
    """What a run made of sentences: the labels that it gives, `[E]`, and the weights of each layer, `[E, N, T, T]`."""

    labels: np.ndarray
    layers: list[np.ndarray]


def places(sentences: Sequence[Sentence]) -> np.ndarray:
    """Returns the positions of the pronoun and of its noun, `[2, E]`; that of the start is 0."""
    texts = [sentence.text.replace(",", "").split() for sentence in sentences]
    found = [(text.index(s.pronoun), text.index(s.noun)) for text, s in zip(texts, sentences, strict=True)]
    return np.transpose(found) + 1


def read(run: Run, sentences: Sequence[Sentence], layer: int | None = None, without: str = "pronoun to noun") -> Read:
    """Reads sentences. In `layer`, if it is given, the looks of WITHOUT are forbidden."""
    ids = run.tokenizer.pad([run.tokenizer.encode(sentence.text.encode()).ids for sentence in sentences])
    length = ids.shape[1]

    def one(tokens: jax.Array, pronoun: jax.Array, noun: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        query, key = WITHOUT[without]
        at = {"pronoun": pronoun, "noun": noun, "any": slice(None)}
        bias = jnp.zeros((1, length, length)).at[0, at[query], at[key]].set(FORBIDDEN)
        with _biased(layer, bias), weights.captured() as calls:
            logits: Any = run.model.apply({"params": run.params}, tokens)
        return logits, [attn.attention_weights(query, key, **options) for query, key, options in calls]

    logits, layers = jax.jit(jax.vmap(one))(jnp.asarray(ids, jnp.int32), *jnp.asarray(places(sentences)))
    return Read(np.asarray(logits).argmax(-1), [np.asarray(layer) for layer in layers])


@contextmanager
def _biased(layer: int | None, bias: jax.Array) -> Iterator[None]:
    """Adds a bias to the scores of one layer."""
    count = 0

    def intercept(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal count
        if context.method_name != "_attend" or not isinstance(context.module, AttentionLayer):
            return run(*args, **kwargs)
        kind, operator, *others = args
        if count == layer:
            args = (kind, lambda *inputs, **options: operator(*inputs, bias=bias, **options), *others)
        count += 1
        return run(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield


def found(layer: np.ndarray, query: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each head the share of examples whose query looks most at the key, and the mean weight, `[N]` each.

    Args:
      layer: Weights `[E, N, T, T]`.
      query, key: Positions, `[E]`.
    """
    rows = layer[np.arange(len(layer)), :, query]  # [E, N, T]
    return (rows.argmax(-1) == key[:, None]).mean(0), rows[np.arange(len(rows)), :, key].mean(0)


def share_of_all(layer: np.ndarray, lengths: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Returns for each head the share of all tokens, without padding, that look most at the key of their example, `[N]`."""
    most = layer.argmax(-1) == key[:, None, None]  # [E, N, T]
    real = np.arange(layer.shape[-1]) < lengths[:, None]
    return (most & real[:, None]).sum((0, 2)) / real.sum()


def of_test(run: Run) -> str:
    """Returns the tables of the test split."""
    sentences = agreement.sentences(0)["test"]
    labels, (pronoun, noun) = np.array([sentence.label for sentence in sentences]), places(sentences)
    lengths = np.array([len(sentence.text.split()) + 1 for sentence in sentences])
    whole, right, wrong = read(run, sentences), labels == 1, labels == 0
    looks, without = [], []
    for index, layer in enumerate(whole.layers):
        most, weight = found(layer[right], pronoun[right], noun[right])
        numbers = most, weight, found(layer[wrong], pronoun[wrong], noun[wrong])[0]
        for head, row in enumerate(zip(*numbers, share_of_all(layer[right], lengths[right], noun[right]), strict=True)):
            looks.append([str(index), str(head), *(f"{number:.3f}" for number in row)])
        left = ((read(run, sentences, index, what).labels == labels)[right].mean() for what in WITHOUT)
        without.append([str(index), *(f"{share:.3f}" for share in left)])
    names = ["layer", "head", "pronoun looks most at its noun", "weight", "in wrong sentences", "any token looks most at it"]
    accuracies = (f"{(whole.labels == labels)[which].mean():.4f}" for which in (right, wrong))
    tables_ = tables.markdown(names, looks), tables.markdown(["without, in layer", *WITHOUT], without)
    return f"Test accuracy on right and wrong sentences: {', '.join(accuracies)}\n\n" + "\n\n".join(tables_)


def of_example(run: Run) -> str:
    """Returns the largest weights of "its" in the example, and what the run says of it with each pronoun."""
    sentences = [
        Sentence(agreement.EXAMPLE.replace("its", pronoun), int(pronoun == "its"), "law", pronoun)
        for pronoun in agreement.NOUNS
    ]
    answers, lines = read(run, sentences), []
    shown, pronoun = words.read(sentences[0].text.encode(), run.tokenizer).shown, places(sentences)[0, 0]
    for index, layer in enumerate(answers.layers):
        for head, row in enumerate(layer[0, :, pronoun]):
            most = ", ".join(f"{shown[key]} {row[key]:.3f}" for key in row.argsort()[::-1][:4])
            lines.append(f"layer {index}, head {head}: {most}")
    said = ", ".join(f"{s.pronoun}: {run.classes[label]}" for s, label in zip(sentences, answers.labels, strict=True))
    return "\n".join([agreement.EXAMPLE, *lines, said])


def main(*folders: str) -> None:
    for folder in folders:
        run = experiments.load(folder)
        print(f"{folder}\n{of_test(run)}\n\n{of_example(run)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
