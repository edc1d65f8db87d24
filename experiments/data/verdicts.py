"""The embedded corpus: reviews from a small grammar, whose labels depend on the order of the words only.

Every review contains two contrary opinions. One is the writer's verdict; the other is conceded, denied, revised in the course
of the film, or held by somebody else. Exchanging the two gives an anagram with the opposite label: "the music was dull, but the
film was lovely" and "the music was lovely, but the film was dull". Both are in the same split. A model that does not see the
order of the words is right about exactly one of them, so its accuracy is one half on every split, however large it is.
"""

import numpy as np

from experiments.data import twins

SIZES = {"train": 8_000, "validation": 2_000, "test": 2_000}
MAX_WORDS = 23

Review = tuple[str, int]  # text, label: 1 where the writer's verdict is positive

# {verdict} and {other} stand for an opinion ("lovely", "very dull", "far from dull"). Where the template itself has a negation
# or an expectation, {Verdict} and {Other} stand for an adjective only.
TEMPLATES = {
    "contrast": (
        "the {aspect} was {other}, but the {film} was {verdict}",
        "the {aspect} was {other}, and yet the {film} was {verdict}",
        "although the {aspect} was {other}, the {film} was {verdict}",
        "even if the {aspect} was {other}, i thought the {film} was {verdict}",
        "the {film} was {verdict}, although the {aspect} was {other}",
        "i thought the {film} was {verdict}, even if the {aspect} was {other}",
    ),
    "change": (
        "at first the {film} was {other}, but in the end it was {verdict}",
        "although the {film} was {other} at first, it was {verdict} in the end",
        "in the end the {film} was {verdict}, even if it was {other} at first",
        "i expected the {film} to be {Other}, but it was {Verdict}",
        "the {film} was {Verdict}, although i expected it to be {Other}",
    ),
    "negation": (
        "the {film} was not {Other} but {Verdict}",
        "the {film} was {Verdict}, not {Other}",
        "the {film} was never {Other}, it was always {Verdict}",
        "the {film} was always {Verdict} and never {Other}",
        "nothing about the {film} was {Other}, it was {Verdict}",
        "i would not call the {film} {Other}, i would call it {Verdict}",
        "i would call the {film} {Verdict}, i would never call it {Other}",
    ),
    "quotation": (
        "{they} said the {film} was {other}, but i thought it was {verdict}",
        "although {they} said the {film} was {other}, i thought it was {verdict}",
        "i thought the {film} was {verdict}, although {they} said it was {other}",
        "{they} said the {film} was {other}, which is wrong, because it was {verdict}",
        "{they} said the {film} was {verdict} and i agree, even if {others} said it was {other}",
        "{they} said the {film} was {other}, but i agree with {others}, who said it was {verdict}",
    ),
}
NOUNS = {
    "film": ("film", "movie", "comedy", "drama", "thriller"),
    "aspect": ("music", "plot", "acting", "dialogue", "script", "cast", "camera work", "opening scene"),
}
PEOPLE = ("my friends", "my brother", "my sister", "my neighbours", "the critics", "the reviewers")
# None is so strong or so weak that "not" makes it ambiguous, as in "not perfect" or "not terrible".
NEGATIVE = "annoying bad bland boring clumsy disappointing dreary dull predictable shallow stupid tedious tiresome"
POSITIVE = "beautiful charming clever delightful engaging exciting good gripping interesting lovely moving original pleasant"
ADJECTIVES = tuple(NEGATIVE.split()), tuple(POSITIVE.split())  # by label
EMPHASES = ("", "", "", "very ", "really ")
NEGATIONS = ("not ", "not at all ", "far from ", "anything but ")
OPENINGS = ("", "", "", "well, ", "honestly, ", "frankly, ")
ENDINGS = ("", "", "", ", enough said", ", that is all", ", and that is all i have to say")


def reviews(seed: int) -> dict[str, list[Review]]:
    """Generates the reviews.

    Args:
      seed: The seed of the random choices.

    Returns:
      The splits of SIZES by name. No text occurs twice, and every review is in the same split as its anagram.
    """
    return twins.splits(_pair, SIZES, MAX_WORDS, np.random.default_rng(seed))


def _pair(rng: np.random.Generator) -> tuple[Review, Review]:
    """Returns a review with a negative verdict, and its anagram with a positive one."""
    pick = twins.picker(rng)

    def opinion(positive: int) -> str:
        if rng.random() < 0.25:
            return pick(NEGATIONS) + pick(ADJECTIVES[1 - positive])
        return pick(EMPHASES) + pick(ADJECTIVES[positive])

    template = pick(OPENINGS) + pick(TEMPLATES[pick(tuple(TEMPLATES))]) + pick(ENDINGS)
    they, others = rng.permutation(len(PEOPLE))[:2]
    words = {name: pick(nouns) for name, nouns in NOUNS.items()} | {"they": PEOPLE[they], "others": PEOPLE[others]}
    bare, full = [pick(adjectives) for adjectives in ADJECTIVES], [opinion(0), opinion(1)]

    def review(label: int) -> Review:
        slots = {"verdict": full[label], "other": full[1 - label], "Verdict": bare[label], "Other": bare[1 - label]}
        return template.format(**words, **slots), label

    return review(0), review(1)
