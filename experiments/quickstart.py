"""The quickstart: three bodies of attention, each without and with positions, on the embedded corpus."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import predict, settings
from experiments.data import verdicts
from experiments.data.corpus import SENTIMENTS
from experiments.data.verdicts import Review
from experiments.report import tables
from experiments.report.curves import Rows, draw_lines
from experiments.storage import run_folder
from experiments.training import train
from experiments.training.progress import BriefProgress

DURATION = "one to two minutes on two idle CPU cores"
HALF = 0.5  # the accuracy of every model without positions
CLASSES = dict(zip(SENTIMENTS, ("negative", "positive"), strict=True))


class Model(NamedTuple):
    """One of the models of the quickstart.

    Attributes:
      page: The page of `configs/`.
      positions: The kind of positions, which replaces that of the page.
      lowest: The lowest test accuracy over seeds 0 to 4, from `python scripts/verdicts_accuracy.py`.
      highest: The highest one.
    """

    page: str
    positions: str
    lowest: float
    highest: float

    @property
    def learns(self) -> bool:
        return self.positions != "none"

    @property
    def name(self) -> str:
        return f"{self.page} {'with' if self.learns else 'without'} positions"

    @property
    def expectation(self) -> str:
        """What is said of the model before it trains."""
        if not self.learns:
            return f"must stay at {HALF:.3f}"
        return f"can learn, {self.lowest:.2f} to {self.highest:.2f} over five seeds"

    def config(self) -> settings.Config:
        """Returns the config of the model on the embedded corpus."""
        config = settings.load_page(self.page, "verdicts")
        config.model.positions = self.positions
        return config


MODELS = (
    Model("single_head", "none", HALF, HALF),
    Model("single_head", "sinusoidal", 0.86, 0.93),
    Model("multi_head", "none", HALF, HALF),
    Model("multi_head", "sinusoidal", 0.93, 0.95),
    Model("transformer", "none", HALF, HALF),
    Model("transformer", "sinusoidal", 0.98, 1.00),
)

INTRODUCTION = f"""\
Does a classifier need to know where in a sentence each word stands?

Six models learn whether the writer of a short review liked the film. Every review has an anagram: the same words in
another order, with the opposite label.

  {{review!r}}  {{label}}
  {{anagram!r}}  {{other}}

Without positions, attention cannot tell the two apart and gives both the same answer. One of the two answers is wrong,
so the accuracy must stay at {HALF:.3f}. With positions, a model can learn the difference.

This takes {DURATION} and needs no network.
"""


def quickstart(workdir: Path) -> None:
    """Trains the models of MODELS, each in its own folder, draws `curves.png`, and prints what each says of three reviews.

    Args:
      workdir: The folder of the run folders and of the figure. Earlier runs of the quickstart there are replaced.

    Raises:
      UsageError: A run folder is that of another config, or cannot be written.
    """
    started = time.monotonic()
    reviews = three_reviews(verdicts.reviews(seed=0)["test"])
    print(_introduction(reviews), flush=True)
    results, curves = {}, {}
    for number, model in enumerate(MODELS, start=1):
        print(f"{number} of {len(MODELS)}  {model.name}: {model.expectation}", flush=True)
        folder = workdir / f"{model.page}-{model.positions}"
        results[model] = _train(model, folder)
        curves[model] = run_folder.read_rows(folder)
    answers = {model: _ask(workdir / f"{model.page}-{model.positions}", reviews) for model in MODELS}
    draw(workdir, curves)
    print(f"\n{_answers(reviews, answers, results)}\n")
    print("Each model without positions gives A and B the same answer.\n")
    print(f"The curves are in {workdir / 'curves.png'}, and each model is in a folder beside it.")
    print(f"That took {time.monotonic() - started:.0f} s.")


def three_reviews(split: Sequence[Review]) -> tuple[Review, Review, Review]:
    """Returns the first review of a split, its anagram, and the second review; none is chosen by what the models say."""

    def words(review: Review) -> list[str]:
        return sorted(review[0].replace(",", "").split())

    first, second, *_ = split
    anagram = next(review for review in split if review != first and words(review) == words(first))
    return first, anagram, second


def _introduction(reviews: Sequence[Review]) -> str:
    (review, label), (anagram, other), _ = reviews
    names = tuple(CLASSES.values())
    return INTRODUCTION.format(review=review, label=names[label], anagram=anagram, other=names[other])


def _train(model: Model, folder: Path) -> dict[str, Any]:
    config, started = model.config(), time.monotonic()
    if run_folder.is_finished(folder, config):
        run_folder.discard(folder)  # a quickstart starts afresh, but replaces nothing except its own runs
    progress = BriefProgress(config.epochs)
    result = train.train(config, folder, model.name, progress)
    said = "" if model.learns else ", as it must be"
    progress.close(f"accuracy {result['test_accuracy']:.3f} on the test reviews{said} ({time.monotonic() - started:.0f} s)")
    return result


def _ask(folder: Path, reviews: Sequence[Review]) -> list[str]:
    """Returns what a trained model says of each review: "positive" or "negative"."""
    lines = predict.predict(run_folder.load(folder), [text.encode() for text, _ in reviews])
    return [CLASSES[json.loads(line)["label"]] for line in lines]


def _answers(reviews: Sequence[Review], answers: Mapping[Model, Sequence[str]], results: Mapping[Model, Any]) -> str:
    """Returns the reviews and a table of what each model says of them."""
    letters, labels = "ABC", [tuple(CLASSES.values())[label] for _, label in reviews]
    lines = ["Three reviews of the test split, which no model has seen (B is the anagram of A):", ""]
    lines += [f"  {letter}  {text!r}" for letter, (text, _) in zip(letters, reviews, strict=True)]
    rows = [["the writer's own verdict", *labels, ""]]
    for model, said in answers.items():
        cells = [f"{word}, {'right' if word == label else 'wrong'}" for word, label in zip(said, labels, strict=True)]
        rows.append([model.name, *cells, f"{results[model]['test_accuracy']:.3f}"])
    return "\n".join([*lines, "", tables.markdown(["model", *letters, "test accuracy"], rows)])


def draw(folder: Path, curves: Mapping[Model, Rows]) -> None:
    """Draws `curves.png` and `curves.svg`: validation accuracy by epoch, each line with its name beside it."""
    title = "Only a model that knows where each word stands can tell a review from its anagram"
    rising = {model.name: rows for model, rows in curves.items() if model.learns}
    flat = {model.page: rows for model, rows in curves.items() if not model.learns}
    note = f"{', '.join(flat)}\nwithout positions: {HALF:.3f}, the most that\nis possible without the order of the words"
    draw_lines(folder, title, rising, list(flat.values()), note)
