"""Values of n-grams at the start of a run: in how many training texts of each class they are."""

import jax.numpy as jnp
import numpy as np

from experiments.data.corpus import Corpus, Split
from experiments.training import steps
from experiments.training.position import Position

_VALUES = "values"  # the parameter of `attn.models.ngram`


def from_log_ratios(at: Position, plan: steps.Plan, corpus: Corpus) -> Position:
    """Replaces the values at the start of a run by `log_ratios` of the training texts, as far as its texts are read."""
    ratios = log_ratios(corpus.train, len(at.state.params[_VALUES]), len(corpus.classes))
    values = ratios[:, 1:] - ratios[:, :1] if len(corpus.classes) == 2 else ratios
    params = at.state.params | {_VALUES: jnp.asarray(values, jnp.float32)}
    return at._replace(state=at.state._replace(params=plan.replicate(params)))


def log_ratios(split: Split, ngrams: int, classes: int) -> np.ndarray:
    """Returns float64 `[ngrams, C]`: log (n_c + 1) / N_c, less the mean of it over the classes, for the ids 1 to `ngrams`.

    n_c is the number of the N_c texts of class c that have the n-gram. For two classes, the difference of a row is the
    log-count ratio of Wang and Manning 2012, "Baselines and bigrams", section 2.1, up to a constant.
    """
    found = np.empty((ngrams, classes))
    for label in range(classes):
        tokens = split.tokens[split.labels == label]
        rows = np.sort(tokens, axis=1)  # hashed n-grams may have one id twice in a text
        rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = 0
        texts = np.bincount(rows.ravel(), minlength=1 + ngrams)[1 : 1 + ngrams]
        found[:, label] = np.log(texts + 1) - np.log(max(len(tokens), 1))
    return found - found.mean(axis=1, keepdims=True)
