"""A new run that starts from the parameters of another one, as far as they fit."""

from pathlib import Path
from typing import Any

import jax
import jax.tree_util as tree

from experiments.data.corpus import Corpus
from experiments.errors import DataError, UsageError
from experiments.storage import run_folder
from experiments.training import steps
from experiments.training.position import Position
from experiments.training.progress import Progress

_OF_WORDS = "embedding"  # the module whose rows belong to the words of the vocabulary


def from_another_run(at: Position, plan: steps.Plan, corpus: Corpus, source: str, progress: Progress) -> Position:
    """Replaces the parameters at the start of a run by those of the last checkpoint of another one.

    A parameter is taken where name and shape agree; those of the embedding only if both runs have the same vocabulary. What is
    not taken keeps its initial values, and is told.

    Args:
      at: The start of the run.
      plan: The plan of the run.
      corpus: Its corpus.
      source: The folder of the other run, which may have another config.
      progress: Where it is told.

    Raises:
      UsageError: The folder holds no run, or none of its parameters fits.
      DataError: The other run is damaged.
    """
    try:
        other = run_folder.load(Path(source))
    except (UsageError, DataError) as error:
        reason = str(error).removeprefix(f"--workdir={source}")
        raise type(error)(f"config.init_from={source}{reason}") from None
    same_words = other.tokenizer.sha256 == corpus.tokenizer.sha256
    theirs = {_name(path): leaf for path, leaf in tree.tree_leaves_with_path(other.params)}
    left: list[str] = []

    def choose(path: tuple[Any, ...], own: Any) -> Any:
        name = _name(path)
        fits = name in theirs and theirs[name].shape == own.shape
        if fits and (same_words or name.split("/")[0] != _OF_WORDS):
            return theirs[name]
        left.append(name)
        return own

    params = tree.tree_map_with_path(choose, at.state.params)
    number = len(jax.tree.leaves(params))
    if len(left) == number:
        raise UsageError(f"config.init_from={source} has no parameter that fits this model by name and shape")
    taken = "all" if not left else f"{number - len(left)} of"
    rest = f"; new: {', '.join(left)}" if left else ""
    progress.say(f"Starts from {source}: {taken} {number} parameter arrays{rest}.")
    return at._replace(state=at.state._replace(params=plan.replicate(params)))


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(key.key) for key in path)
