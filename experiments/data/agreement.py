"""The corpus of agreement: does the possessive pronoun of a sentence agree with its noun in number and gender?

Its noun is the subject of the first clause: "the law will never be perfect, but its judges should be just" is right. Other
nouns distract, before it, between the two, and behind the pronoun. In every sentence at least one of them is of another
class than the subject, and exchanging the two gives an anagram with the opposite label: "the judges will never be perfect,
but its law should be just". Both are in the same split. A model that does not see the order of the words is right about
exactly one of them, and so is one that adds up what single words say.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from experiments.data import twins

SIZES = {"train": 8_000, "validation": 2_000, "test": 2_000}
MAX_WORDS = 23
CLASSES = ("wrong", "right")
# In no split: both of its nouns are of one class, so that it has no twin.
EXAMPLE = "the law will never be perfect, but its application should be just"


class Sentence(NamedTuple):
    """A sentence. Its nouns are different words, and its pronoun is no other word of it, so each is in one place."""

    text: str
    label: int  # 1 where the pronoun agrees with its noun
    noun: str  # the subject, which is the pronoun's noun whether it agrees or not
    pronoun: str


NOUNS = {  # by the pronoun that agrees with them
    "its": ["law", "application", "court", "church", "city", "council", "school", "state", "army", "bank"],
    "their": ["judges", "citizens", "students", "teachers", "doctors", "sailors", "farmers", "soldiers", "taxes", "rules"],
    "his": ["king", "father", "brother", "uncle", "grandfather", "nephew", "duke", "monk", "gentleman", "bridegroom"],
    "her": ["queen", "mother", "sister", "aunt", "grandmother", "niece", "duchess", "nun", "lady", "bride"],
}
# {a} is the pronoun's noun, {x} and {y} are others. Each verb has a modal, because "is" and "are" would tell the number.
SUBJECTS = (
    "{opening}the {a}",
    "{opening}the {a}",
    "{opening}the {a} {by} the {x}",
    "{opening}the {a} that the {x} {can} {help}",
    "{opening}the {a} that {can} {help} the {x}",
    "{opening}{unlike} the {x}, the {a}",
    "{opening}{unlike} the {x}, the {a}",
    "{opening}{if} the {x} {can} {help} somebody, the {a}",
)
PREDICATES = ("{will} be {adjective}", "{will} {help} somebody", "{will} {help} the {x}")
POSSESSIONS = (
    "{pronoun} {y} {should} be {other}",
    "{pronoun} {y} {should} {serve} somebody",
    "{pronoun} {y} {should} {serve} the {x}",
)
CHOICES = {
    "opening": ("", "", "", "", "perhaps ", "in the end "),
    "by": ("near", "behind", "with", "before"),
    "unlike": ("unlike", "like", "without", "after"),
    "if": ("if", "unless", "where"),
    "can": ("can", "might", "must"),
    "will": ("will never", "will", "may not", "may soon", "would always"),
    "should": ("should", "should still", "could", "could never"),
    "help": ("help", "trust", "change", "protect"),
    "serve": ("serve", "follow", "forget", "support"),
    "joint": (", but", ", and yet", ", and", ", so"),
}
ADJECTIVES = ["perfect", "just", "famous", "strong", "calm", "proud", "rich", "poor", "free", "safe", "ready", "modern"]


def sentences(seed: int) -> dict[str, list[Sentence]]:
    """Generates the sentences.

    Args:
      seed: The seed of the random choices.

    Returns:
      The splits of SIZES by name. No text occurs twice, and every sentence is in the same split as its anagram.
    """
    return twins.splits(_pair, SIZES, MAX_WORDS, np.random.default_rng(seed))


def _pair(rng: np.random.Generator) -> tuple[Sentence, Sentence]:
    """Returns a wrong sentence and its anagram that is right."""
    pick = twins.picker(rng)
    template = _template(pick)
    words = {name: pick(options) for name, options in CHOICES.items()}
    words["adjective"], words["other"] = (ADJECTIVES[index] for index in rng.permutation(len(ADJECTIVES))[:2])
    mine, other = (tuple(NOUNS)[index] for index in rng.permutation(len(NOUNS))[:2])
    slots = [name for name in ("x", "y") if f"{{{name}}}" in template]
    twin = pick(slots)  # the noun that changes places with the subject
    nouns = {"a": pick(NOUNS[mine]), twin: pick(NOUNS[other])}
    if len(slots) == 2:  # the third noun agrees more often than not, so that only the subject's agreement decides
        third = mine if rng.random() < 0.5 else pick(tuple(NOUNS))
        nouns["xy".replace(twin, "")] = pick([noun for noun in NOUNS[third] if noun not in nouns.values()])

    def sentence(label: int) -> Sentence:
        placed = nouns if label else nouns | {"a": nouns[twin], twin: nouns["a"]}
        return Sentence(template.format(**words, **placed, pronoun=mine), label, placed["a"], mine)

    return sentence(0), sentence(1)


def _template(pick: Callable[[Sequence[str]], str]) -> str:
    """Returns a template that has {x} once at most."""
    while True:
        found = f"{pick(SUBJECTS)} {pick(PREDICATES)}{{joint}} {pick(POSSESSIONS)}"
        if found.count("{x}") <= 1:
            return found
