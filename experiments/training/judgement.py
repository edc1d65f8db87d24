"""What a classifier says of the examples of a split, class by class, and how far its probabilities can be believed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

BINS = 15
MOST_CONFUSED = 100  # classes up to which the confusion matrix is kept: that of 1,000 would have a million numbers


class Judged(NamedTuple):
    """The examples of a split, in any order.

    Attributes:
      labels: Integers `[E]`; of pairs `[E, U]`, as the others.
      predicted: Integers `[E]`, the most probable classes.
      confidence: `[E]`, their probabilities.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray


def of_split(judged: Judged, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `measures` of a split of texts with labels, or `measures_of_pairs` of one of pairs, which has no classes."""
    return measures(judged, classes) if classes else measures_of_pairs(judged)


def measures_of_pairs(judged: Judged) -> dict[str, Any]:
    """Returns what the targets of a split say of a model, as JSON has it.

    `exact_match` is the share of targets of which every token is the most probable one given those before it, which are those
    that greedy decoding gives. `token_accuracy` is that of the tokens, padding left out. `by_target_length` has for each number
    of tokens, without the end, the number of targets and the number of exact ones.
    """
    real = judged.labels != 0
    right = (judged.predicted == judged.labels) | ~real
    exact, lengths = right.all(1), real.sum(1) - 1
    return {
        "exact_match": float(exact.mean()),
        "token_accuracy": float((right & real).sum() / real.sum()),
        "by_target_length": {
            str(length): [int((lengths == length).sum()), int(exact[lengths == length].sum())]
            for length in np.unique(lengths).tolist()
        },
    }


def measures(judged: Judged, classes: Sequence[str]) -> dict[str, Any]:
    """Returns `accuracy`, `macro_f1`, `recall` by the name of the class, `confusion` and `ece`, as JSON has them.

    The macro F1 is the mean of the F1 of the classes that have an example or a prediction. The recall of a class without
    examples is None. `confusion[i][j]` is the number of examples of class i for which class j was predicted; for more than
    MOST_CONFUSED classes it is None. `ece` is that of `calibration_error`.
    """
    examples, predictions, hits = (
        np.bincount(labels, minlength=len(classes))
        for labels in (judged.labels, judged.predicted, judged.labels[judged.labels == judged.predicted])
    )
    either = examples + predictions  # 2 TP + FP + FN
    recall = [hit / count if count else None for hit, count in zip(hits.tolist(), examples.tolist(), strict=True)]
    return {
        "accuracy": float(hits.sum() / examples.sum()),
        "macro_f1": float(np.mean(2 * hits[either > 0] / either[either > 0])),
        "recall": dict(zip(classes, recall, strict=True)),
        "confusion": confusion(judged, len(classes)).tolist() if len(classes) <= MOST_CONFUSED else None,
        "ece": calibration_error(judged.confidence, judged.labels == judged.predicted),
    }


def confusion(judged: Judged, classes: int) -> np.ndarray:
    """Returns integers `[C, C]`: the number of examples of each class (rows) by their predicted class (columns)."""
    pairs = judged.labels.astype(np.int64) * classes + judged.predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Returns the expected calibration error of Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 5.

    The confidences are divided into M bins of equal width, of which bin m has those in ((m − 1) / M, m / M]. The error is the
    sum over the bins of |B| / n · |acc(B) − conf(B)|, with the accuracy and the mean confidence of the examples in a bin.

    Args:
      confidence: `[E]`, the probability of each predicted class.
      correct: bool `[E]`, whether it is the label.
      bins: M.
    """
    confidence = np.asarray(confidence, np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, np.asarray(correct, np.float64) - confidence, minlength=bins)  # |B| · (acc − conf)
    return float(np.abs(gaps).sum() / len(confidence))
