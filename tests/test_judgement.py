"""Macro F1, recall, confusion and calibration against small numbers that were worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics

from experiments.training import judgement
from experiments.training.judgement import Judged

# Class a: 3 examples, 2 found, predicted 3 times. b: 2 examples, 1 found, predicted twice. c: 1 example, found, predicted once.
# d has an example and no prediction, e neither.
LABELS = np.array([0, 0, 0, 1, 1, 2, 3])
PREDICTED = np.array([0, 0, 1, 0, 1, 2, 2])
CONFIDENCE = np.array([0.9, 0.8, 0.6, 0.7, 0.5, 1.0, 0.4], np.float32)


def test_by_hand():
    found = judgement.measures(Judged(LABELS, PREDICTED, CONFIDENCE), ["a", "b", "c", "d", "e"])
    assert found["accuracy"] == 4 / 7
    assert found["recall"] == {"a": 2 / 3, "b": 1 / 2, "c": 1.0, "d": 0.0, "e": None}
    # F1 = 2 TP / (examples + predictions): a 4/6, b 2/4, c 2/3, d 0/1; e counts in no mean.
    assert found["macro_f1"] == pytest.approx((4 / 6 + 2 / 4 + 2 / 3 + 0) / 4)
    assert found["confusion"] == [[2, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0] * 5]


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 6, 200), rng.integers(0, 6, 200)
    found = judgement.measures(Judged(labels, predicted, np.ones(200)), list("abcdef"))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found["confusion"] == metrics.confusion_matrix(labels, predicted).tolist()
    assert list(found["recall"].values()) == pytest.approx(metrics.recall_score(labels, predicted, average=None))


def test_the_calibration_error_by_hand():
    # Two bins: (0, 0.5] has 0.5 (right) and 0.3 (wrong): |0.5 − 0.4|; (0.5, 1] has 0.9 (right), 0.6 (wrong): |0.5 − 0.75|.
    confidence, correct = np.array([0.5, 0.3, 0.9, 0.6]), np.array([True, False, True, False])
    assert judgement.calibration_error(confidence, correct, bins=2) == pytest.approx(0.5 * 0.1 + 0.5 * 0.25)
    assert judgement.calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert judgement.calibration_error(np.ones(4), np.array([True, False, False, False])) == pytest.approx(0.75)


def test_many_classes_have_no_matrix():
    labels = np.arange(judgement.MOST_CONFUSED + 1)
    found = judgement.measures(Judged(labels, labels, np.ones(len(labels))), [str(label) for label in labels])
    assert found["confusion"] is None
    assert (found["macro_f1"], len(found["recall"])) == (1.0, len(labels))
