"""The embedded corpus: a reader of its own agrees with every label, and the bag of words says nothing about any."""

import collections
import hashlib
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from experiments.data import generated, verdicts

LIKED = "lovely good clever moving original charming beautiful exciting gripping engaging delightful pleasant interesting"
DISLIKED = "dull bad boring stupid tedious tiresome bland shallow clumsy predictable annoying dreary disappointing"
GOOD, BAD = set(LIKED.split()), set(DISLIKED.split())
PART_OF_A_FILM = re.compile(r"\b(music|plot|acting|dialogue|script|cast|camera work|opening scene)\b")
DENIAL = re.compile(r"\b(not|not at all|never|far from|anything but)$|\bnothing about\b|\b(not|never) call\b")

# Labelled by hand; every way of saying it occurs.
READ_BY_HAND = {
    "contrast": (
        ("the music was dull, but the film was lovely", 1),
        ("honestly, the plot was clever, and yet the comedy was really tedious", 0),
        ("although the camera work was bland, the drama was moving, enough said", 1),
        ("although the script was not stupid, the movie was far from original", 0),
        ("even if the cast was anything but charming, i thought the film was not at all bad", 1),
        ("the thriller was dreary, although the opening scene was gripping", 0),
        ("i thought the film was very good, even if the acting was clumsy", 1),
        ("i thought the comedy was not good, even if the dialogue was not bad", 0),
    ),
    "change": (
        ("at first the film was tiresome, but in the end it was exciting", 1),
        ("although the drama was engaging at first, it was predictable in the end", 0),
        ("in the end the movie was not boring, even if it was far from interesting at first", 1),
        ("frankly, i expected the comedy to be delightful, but it was annoying", 0),
        ("the thriller was delightful, although i expected it to be tiresome, that is all", 1),
        ("well, in the end the film was anything but pleasant, even if it was engaging at first", 0),
    ),
    "negation": (
        ("the film was not shallow but beautiful", 1),
        ("well, the film was disappointing, not exciting", 0),
        ("the movie was never dull, it was always charming", 1),
        ("the drama was always disappointing and never clever", 0),
        ("nothing about the comedy was shallow, it was lovely", 1),
        ("i would not call the film moving, i would call it boring", 0),
        ("i would call the thriller gripping, i would never call it bland", 1),
    ),
    "quotation": (
        ("the critics said the film was dull, but i thought it was lovely", 1),
        ("although my friends said the comedy was not bad, i thought it was stupid", 0),
        ("i thought the film was far from tedious, although the reviewers said it was clumsy", 1),
        ("my neighbours said the drama was good, which is wrong, because it was really bad", 0),
        ("my sister said the movie was clever and i agree, even if my brother said it was not at all original", 1),
        ("my brother said the movie was interesting, but i agree with my sister, who said it was dreary", 0),
    ),
}


def judge(review: str) -> int:
    """The writer's verdict: what is said of the film, now, by the writer or somebody the writer agrees with.

    Reads the words between two adjectives; knows neither the commas nor the templates, and raises unless there is one verdict.
    """
    words = [word for word in re.findall("[a-z]+", review) if word not in ("very", "really")]
    places = [place for place, word in enumerate(words) if word in GOOD | BAD]
    held = set()
    for previous, place, following in zip([-1, *places], places, [*places[1:], len(words)], strict=False):
        before, after = " ".join(words[previous + 1 : place]), " ".join(words[place + 1 : following])
        elsewhere = PART_OF_A_FILM.search(before)
        earlier = "expected" in before or "at first the" in before or after.startswith("at first")
        others = " said " in before and not after.startswith("and i agree") and "i agree with" not in before
        if not (elsewhere or earlier or others):
            held.add((words[place] in GOOD) != bool(DENIAL.search(before)))
    (verdict,) = held
    return int(verdict)


@pytest.fixture(scope="module")
def splits():
    return verdicts.reviews(0)


def test_generation_is_pinned(splits):
    text = "\n".join(f"{name} {label} {text}" for name, split in splits.items() for text, label in split)
    assert hashlib.sha256(text.encode()).hexdigest() == "a995ab8576bc74dfdc6a15ea1f4eb39d3de289b9997759f618a7baa1e11a0e65"
    assert verdicts.reviews(0) == splits
    assert verdicts.reviews(1) != splits


@pytest.mark.parametrize("structure", READ_BY_HAND)
def test_judge_agrees_with_a_person(structure):
    for review, label in READ_BY_HAND[structure]:
        assert judge(review) == label, review
    assert len(READ_BY_HAND[structure]) >= len(verdicts.TEMPLATES[structure])


def test_judge_agrees_with_every_label(splits):
    for split in splits.values():
        assert [review for review, label in split if judge(review) != label] == []


def test_splits_are_balanced_short_and_disjoint(splits):
    assert {name: len(split) for name, split in splits.items()} == {"train": 8_000, "validation": 2_000, "test": 2_000}
    for split in splits.values():
        assert 2 * sum(label for _, label in split) == len(split)
        lengths = [len(text.split()) for text, _ in split]
        assert (min(lengths) < 8, max(lengths)) == (True, 23)
    words = [text.replace(",", "") for split in splits.values() for text, _ in split]  # as the models see them
    assert len(set(words)) == len(words)


def test_every_review_has_an_anagram_with_the_other_label(splits):
    for split in splits.values():
        labels = collections.defaultdict(list)
        for text, label in split:
            labels[" ".join(sorted(text.replace(",", "").split()))].append(label)
        assert {np.mean(bag) for bag in labels.values()} == {0.5}


@pytest.mark.parametrize(("longest", "low", "high"), [(1, 0.5, 0.5), (3, 0.8, 0.95)])
def test_logistic_regression_learns_from_runs_of_words_alone(splits, longest, low, high):
    """5 seeds: single words 0.5 each (an anagram is the same row), with runs of two and three 0.867 to 0.888."""
    (texts, labels), (test_texts, test_labels) = (zip(*splits[name], strict=True) for name in ("train", "test"))
    counts = CountVectorizer(ngram_range=(1, longest), token_pattern="[a-z]+")
    model = LogisticRegression(max_iter=1_000).fit(counts.fit_transform(texts), labels)
    assert low <= model.score(counts.transform(test_texts), test_labels) <= high


def test_tokens(splits):
    corpus = generated.load("verdicts", None, None)
    assert corpus.train.tokens.shape == (8_000, 24)
    assert corpus.train.tokens.max() == corpus.tokenizer.vocabulary_size - 1
    names = dict(enumerate(corpus.tokenizer.words, start=4))
    for name, split in {"train": corpus.train, "validation": corpus.validation, "test": corpus.test()}.items():
        assert split.labels.dtype == np.int8
        for row, (text, label), target in zip(split.tokens.tolist(), splits[name], split.labels.tolist(), strict=True):
            words = b" ".join(names[token] for token in row[1:] if token)
            assert (row[0], words.decode(), target) == (1, text.replace(",", ""), label)


def test_a_smaller_vocabulary_and_length_are_honoured():
    corpus = generated.load("verdicts", 50, 10, seed=3)
    assert corpus.train.tokens.shape == (8_000, 10)
    assert corpus.train.tokens.max() == 49
    assert (corpus.train.tokens == 2).any()
    with pytest.raises(ValueError, match="vocabulary_size=0"):
        generated.load("verdicts", 0, None)
