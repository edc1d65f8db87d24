"""The flags of `predict` that are about pairs of texts, and what it prints of them."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from absl.flags import FlagValues

from experiments.command_line.command_flags import path
from experiments.errors import UsageError
from experiments.fields import PAIRS
from experiments.storage import files

DEFAULTS = {"beam": 1, "length_penalty": None, "align": False, "picture": None}
_WIDEST = 1_000


class Wanted(NamedTuple):
    """The values of the flags."""

    beam: int
    length_penalty: float
    align: bool
    picture: Path | None
    given: tuple[str, ...]  # the flags of the command line, for an error


def read(values: FlagValues) -> Wanted:
    """Returns the flags. Raises UsageError if one breaks its rule."""
    if not 1 <= values.beam <= _WIDEST:
        raise UsageError(f"--beam={values.beam} must be an integer from 1 to {_WIDEST:,}")
    penalty = _number(values.length_penalty)
    if values.length_penalty is not None and values.beam == 1:
        raise UsageError(
            f"--length_penalty={values.length_penalty} goes with --beam=2 or more: it orders the targets of a beam"
        )
    picture = None if values.picture is None else path("--picture", values.picture)
    if picture is not None:
        if picture.suffix not in (".svg", ".html"):
            raise UsageError(f"--picture={picture} must end with .svg or .html")
        if picture.is_dir() or not picture.absolute().parent.is_dir():
            raise UsageError(f"--picture={picture} must be a file in a folder that exists")
        files.refuse_unwritable("--picture", picture.absolute().parent)
    return Wanted(values.beam, penalty, values.align, picture, tuple(f"--{name}" for name in DEFAULTS if values[name].present))


def _number(text: str | None) -> float:
    try:
        number = 0.0 if text is None else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 10:
        raise UsageError(f"--length_penalty={text} must be a number from 0 to 10")
    return number


def refuse_other(run: Any, workdir: Path, wanted: Wanted) -> bool:
    """Returns whether a run has pairs. Raises UsageError if a flag is given that goes with pairs, and it has none."""
    pairs = run.config.data.name in PAIRS
    if wanted.given and not pairs:
        raise UsageError(f"{wanted.given[0]} goes with a run of pairs of texts: --workdir={workdir} holds one that classifies")
    return pairs


def predict(run: Any, texts: Iterable[bytes], wanted: Wanted, size: int, show_text: bool, every: bool) -> None:
    """Prints the output of each text, and draws its alignment if that is wanted. An empty output has none.

    Raises:
      UsageError: A text is empty, there are several for one picture, its output is empty, or the model has no attention to
        draw.
    """
    from experiments import pair_predict

    if wanted.picture:
        several = list(texts)
        if len(several) != 1:
            raise UsageError(f"--picture={wanted.picture} draws one text, not {len(several)}: give it with --words")
        texts = several
    if wanted.align or wanted.picture:
        pair_predict.check_maps(run)
    size = min(size, pair_predict.BATCH_SIZE)
    for answer in pair_predict.answers(run, texts, wanted.beam, wanted.length_penalty, size):
        print(pair_predict.line_of(run, answer, show_text, every), flush=True)
        if wanted.align and answer.targets[0][0]:
            print(pair_predict.alignment(run, answer).text(), flush=True)
        if wanted.picture:
            drawn = pair_predict.alignment(run, answer)
            files.write_whole(wanted.picture, drawn.svg() if wanted.picture.suffix == ".svg" else drawn.html())
