"""The kinds of data that `config.data.name` may name, and what each of them says of the fields of a config.

A new kind of data is a line here and the function that reads it. Imports the standard library only.
"""

from typing import NamedTuple

_FILE = ("path", "encoding")
_COLUMNS = ("text", "label")
_SHARES = ("validation_share", "test_share", "split_seed")
_WORDS = ("filters", "marks", "ngram_features", "ngram_choice", "ngram_context")
FIELDS = (*_FILE, *_COLUMNS, *_SHARES, *_WORDS, "unit")  # of `config.data`, which some kinds do not honour


class Kind(NamedTuple):
    """A kind of data.

    Attributes:
      honoured: Which of FIELDS it honours. Another one must have the value that changes nothing.
      with_ngrams: Which it honours beside these with `data.ngrams`.
      path: What `data.path` must be; None: it may be None.
      classes: The number of its classes, where no file tells it. It then has pages of its own, and n-grams.
      grammar: Whether a grammar generates it; see `generated.GRAMMARS`.
      pairs: Whether its targets are texts, and not labels.
    """

    honoured: tuple[str, ...]
    with_ngrams: tuple[str, ...] = ()
    path: str | None = None
    classes: int | None = None
    grammar: bool = False
    pairs: bool = False


KINDS = {
    "imdb": Kind(_WORDS, with_ngrams=("validation_share",), classes=2),  # the blog's models must not change their validation
    "verdicts": Kind(_WORDS, classes=2, grammar=True),
    "agreement": Kind(_WORDS, classes=2, grammar=True),
    "csv": Kind((*_FILE, *_COLUMNS, *_SHARES, *_WORDS), path="a file of texts and labels"),
    "dates": Kind(("unit",), pairs=True),
    "reversal": Kind(("unit",), pairs=True),
    "english_chinese": Kind(("unit",), pairs=True),
    "pairs": Kind((*_FILE, *_SHARES, "unit"), path="a file with two columns", pairs=True),
}
DATASET = "tfds:"  # how the name of a prepared dataset begins
_DATASET = Kind((*_COLUMNS, *_SHARES, *_WORDS))
_REGISTERED = Kind((*_FILE, *_COLUMNS, *_SHARES, *_WORDS))  # MODULE:NAME, whose function gets all fields


def kind_of(name: str) -> Kind:
    """Returns the kind of the data with a name."""
    return KINDS.get(name, _DATASET if name.startswith(DATASET) else _REGISTERED)
