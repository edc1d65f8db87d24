"""The corpus of agreement: a reader of its own agrees with every label, and no bag of words says anything about any."""

import collections
import hashlib

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from experiments.data import agreement, generated
from experiments.data.agreement import Sentence
from scripts import agreement_attention

WHOSE = {  # which pronoun a noun takes
    noun: pronoun
    for pronoun, nouns in {
        "its": "law application court church city council school state army bank",
        "their": "judges citizens students teachers doctors sailors farmers soldiers taxes rules",
        "his": "king father brother uncle grandfather nephew duke monk gentleman bridegroom",
        "her": "queen mother sister aunt grandmother niece duchess nun lady bride",
    }.items()
    for noun in nouns.split()
}
READ_BY_HAND = (  # every way of saying it
    ("the law will never be perfect, but its application should be just", 1, "law"),
    ("the law will never be perfect, but their application should be just", 0, "law"),
    ("the judges near the law would always be calm, and yet its aunt could be rich", 0, "judges"),
    ("the queen that the judges can trust may not be rich, so her city should be free", 1, "queen"),
    ("perhaps the judges that must help the queen will be safe, and their city could never be free", 1, "judges"),
    ("in the end unlike the king, the mother may soon be proud, but his bride should serve somebody", 0, "mother"),
    ("after the mother, the king may soon be proud, but his bride should serve somebody", 1, "king"),
    ("if the aunt might help somebody, the army may soon be ready, and its rules should be just", 1, "army"),
    ("the taxes will never change the duke, but their law should still be modern", 1, "taxes"),
    ("the duke will protect somebody, and her school could follow the niece", 0, "duke"),
)


def read(text: str) -> tuple[str, str]:
    """The subject of the first clause and the pronoun, found without the templates."""
    *clause, rest = text.split(", ")
    words = " ".join(clause).split()
    if words[:3] == ["in", "the", "end"]:
        words = words[3:]
    nouns = [word for word in words if word in WHOSE]
    before = next(word for word in words if word != "perhaps") != "the"  # another noun, with "unlike" or "if"
    [pronoun] = [word for word in rest.split() if word in set(WHOSE.values())]
    return nouns[before], pronoun


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Sentence]]:
    return agreement.sentences(0)


def bag(text: str) -> str:
    return " ".join(sorted(text.replace(",", "").split()))


def test_generation_is_pinned(splits):
    text = "\n".join(f"{name} {sentence.label} {sentence.text}" for name, split in splits.items() for sentence in split)
    assert hashlib.sha256(text.encode()).hexdigest() == "35f47e239d2ec623b7133af15f32e6538fbc98b5a6ff40a23453e1a69647b787"
    assert agreement.sentences(0) == splits
    assert agreement.sentences(1) != splits


def test_the_reader_agrees_with_a_person():
    for text, label, noun in READ_BY_HAND:
        found, pronoun = read(text)
        assert (found, int(WHOSE[found] == pronoun)) == (noun, label), text


def test_the_reader_agrees_with_every_label_noun_and_pronoun(splits):
    for split in splits.values():
        for text, label, noun, pronoun in split:
            assert read(text) == (noun, pronoun), text
            assert label == (WHOSE[noun] == pronoun), text
            words = text.replace(",", "").split()
            assert words.count(noun) == words.count(pronoun) == 1


def test_splits_are_balanced_short_and_disjoint(splits):
    assert {name: len(split) for name, split in splits.items()} == {"train": 8_000, "validation": 2_000, "test": 2_000}
    for split in splits.values():
        assert 2 * sum(sentence.label for sentence in split) == len(split)
        lengths = [len(sentence.text.split()) for sentence in split]
        assert (min(lengths) < 12, max(lengths) <= agreement.MAX_WORDS) == (True, True)
    bags = {name: {bag(sentence.text) for sentence in split} for name, split in splits.items()}
    assert sum(map(len, bags.values())) == len(set().union(*bags.values())), "no words are in two splits, in whatever order"
    texts = [sentence.text.replace(",", "") for split in splits.values() for sentence in split]  # as the models see them
    assert len(set(texts)) == len(texts)


def test_the_best_rule_about_a_bag_of_words_is_right_half_the_time(splits):
    """Even one that has seen the test split: the majority of the labels of each bag is no majority."""
    for split in splits.values():
        labels = collections.defaultdict(list)
        for sentence in split:
            labels[bag(sentence.text)].append(sentence.label)
        assert sum(max(collections.Counter(found).values()) for found in labels.values()) == len(split) / 2


def test_simple_rules_are_not_enough(splits):
    """Over the test split: whether the first noun agrees, the last one before the pronoun, or any of the others."""
    right = collections.Counter()
    for text, label, noun, pronoun in splits["test"]:
        words = [word for word in text.replace(",", "").split() if word in WHOSE or word == pronoun]
        place = words.index(pronoun)
        others = {WHOSE[word] for word in words if word not in (noun, pronoun)}
        right["first"] += (WHOSE[words[0]] == pronoun) == label
        right["last"] += (WHOSE[words[place - 1]] == pronoun) == label
        right["others"] += (pronoun not in others) == label
    assert {rule: round(count / 2_000, 2) for rule, count in right.items()} == {"first": 0.79, "last": 0.69, "others": 0.75}


@pytest.mark.parametrize(("longest", "low", "high"), [(1, 0.5, 0.5), (3, 0.7, 0.85)])
def test_logistic_regression_learns_from_runs_of_words_alone(splits, longest, low, high):
    """Single words 0.5 exactly (an anagram is the same row), with runs of two and three 0.759 to 0.771 over 3 seeds."""
    (texts, labels), (others, truth) = (zip(*(s[:2] for s in splits[name]), strict=True) for name in ("train", "test"))
    counts = CountVectorizer(ngram_range=(1, longest), token_pattern="[a-z]+")
    model = LogisticRegression(max_iter=1_000).fit(counts.fit_transform(texts), labels)
    assert low <= model.score(counts.transform(others), truth) <= high


def test_the_example_is_a_sentence_of_the_grammar_and_in_no_split(splits):
    choices = {"opening": "", "will": "will never", "adjective": "perfect", "joint": ", but", "should": "should"}
    nouns = {"a": "law", "y": "application", "other": "just", "pronoun": "its"}
    assert {choices[name] in agreement.CHOICES[name] for name in choices.keys() & agreement.CHOICES.keys()} == {True}
    assert {"law", "application"} <= set(agreement.NOUNS["its"]) and {"perfect", "just"} <= set(agreement.ADJECTIVES)
    template = f"{agreement.SUBJECTS[0]} {agreement.PREDICATES[0]}{{joint}} {agreement.POSSESSIONS[0]}"
    assert template.format(**choices, **nouns) == agreement.EXAMPLE == READ_BY_HAND[0][0]
    words = {tuple(sentence.text.replace(",", "").split()) for split in splits.values() for sentence in split}
    for pronoun in agreement.NOUNS:
        assert tuple(agreement.EXAMPLE.replace(",", "").replace("its", pronoun).split()) not in words
    trained = {word for sentence in splits["train"] for word in sentence.text.replace(",", "").split()}
    assert set(agreement.EXAMPLE.replace(",", "").split()) <= trained, "each of its words is known"


def test_tokens(splits):
    corpus = generated.load("agreement", None, None)
    assert corpus.classes == ("wrong", "right")
    assert corpus.train.tokens.shape == (8_000, agreement.MAX_WORDS + 1)
    names = dict(enumerate(corpus.tokenizer.words, start=4))
    for name, split in {"train": corpus.train, "validation": corpus.validation, "test": corpus.test()}.items():
        assert split.labels.tolist() == [sentence.label for sentence in splits[name]]
        for row, sentence in zip(split.tokens.tolist(), splits[name], strict=True):
            words = b" ".join(names[token] for token in row[1:] if token)
            assert (row[0], words.decode()) == (1, sentence.text.replace(",", ""))
    assert not np.array_equal(corpus.train.tokens, generated.load("agreement", None, None, seed=3).train.tokens)


def test_who_looks_at_whom():
    """Two sentences of three and two tokens, two heads; by hand."""
    layer = np.zeros((2, 2, 3, 3))
    layer[0, 0] = [[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.1, 0.5, 0.4]]
    layer[0, 1] = [[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1]]
    layer[1, :, :2, :2] = [[[0.9, 0.1], [0.3, 0.7]], [[0.4, 0.6], [0.8, 0.2]]]
    layer[1, :, 2, 0] = 1  # padding, which does not count
    pronoun, noun, lengths = np.array([2, 1]), np.array([1, 0]), np.array([3, 2])
    most, weight = agreement_attention.found(layer, pronoun, noun)
    np.testing.assert_allclose(most, [0.5, 0.5])
    np.testing.assert_allclose(weight, [(0.5 + 0.3) / 2, (0.4 + 0.8) / 2])
    np.testing.assert_allclose(agreement_attention.share_of_all(layer, lengths, noun), [3 / 5, 2 / 5])
    said = Sentence("in the end the law will be just, but its bride should serve somebody", 0, "law", "its")
    assert agreement_attention.places([said]).tolist() == [[10], [5]]
