"""The trials of a sweep: a checked config for each point, with a name that says what determines its result."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import settings
from experiments.data.corpus import Corpus
from experiments.errors import UsageError
from experiments.settings import Config
from experiments.sweeps.points import Point

MOST = 100_000  # points of a sweep
# The fields that choose a corpus.
_DATA = (*(field for field in settings.RULES if field.startswith("data.")), "model.num_classes")


class Trial(NamedTuple):
    """A trial.

    Attributes:
      name: A hash of the fields that determine its result, and of the data. It is the name of its run folder.
      point: The fields in which it differs from the base.
      fields: All fields of its config, by their dotted names.
      corpus: The SHA-256 of its corpus.
    """

    name: str
    point: Point
    fields: dict[str, Any]
    corpus: str

    @property
    def epochs(self) -> int:
        """The number of its epochs."""
        return self.fields["epochs"]

    @property
    def fingerprint(self) -> str:
        """That of its config, which does not depend on its corpus; see `settings.fingerprint`."""
        return settings.fingerprint(self.config())

    def config(self, epochs: int | None = None) -> Config:
        """Returns its config, with as many epochs as are given."""
        config = config_of(self.fields)
        config.epochs = epochs or config.epochs
        return config


def config_of(fields: Mapping[str, Any]) -> Config:
    """Returns the config with these flat fields."""
    nested: dict[str, Any] = {}
    for field, value in fields.items():
        group, _, name = field.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[name] = value
    return ConfigDict(nested)


def make(base: Mapping[str, Any], points: Iterable[Point], read: Callable[[Config], Corpus]) -> list[Trial]:
    """Returns the trials of a sweep.

    Args:
      base: The flat fields that all trials share.
      points: What each of them changes.
      read: Returns the corpus of a config.

    Raises:
      UsageError: There is no point, one breaks a rule, or two are the same trial. Names the point.
      DataError: A corpus cannot be read.
    """
    changes = _listed(points)
    corpora: dict[tuple[Any, ...], str] = {}
    all_fields = [_fields(base, point, number) for number, point in enumerate(changes, start=1)]
    trials: dict[str, Trial] = {}
    for number, (point, fields) in enumerate(zip(changes, all_fields, strict=True), start=1):
        config, key = config_of(fields), tuple(fields[field] for field in _DATA)
        if key not in corpora:
            corpora[key] = read(config).sha256
        name = name_of(config, corpora[key])
        if name in trials:
            raise UsageError(_twice(number, point, list(trials).index(name) + 1, trials[name].point))
        trials[name] = Trial(name, point, fields, corpora[key])
    return list(trials.values())


def name_of(config: Config, corpus: str) -> str:
    """Returns the name of the trial with a config, on a corpus with this SHA-256."""
    identity = {"config": settings.fingerprint(config), "corpus": corpus}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def described(point: Mapping[str, Any]) -> str:
    """Returns for example "model.num_heads=4, seed=0"."""
    return ", ".join(f"{field}={value}" for field, value in point.items()) or "the config itself"


def _listed(points: Iterable[Point]) -> list[Point]:
    found: list[Point] = []
    for number, point in enumerate(points, start=1):
        if number > MOST:
            raise UsageError(f"the sweep has more than {MOST:,} points")
        if not isinstance(point, Mapping):
            raise UsageError(f"point {number} is {point!r}: it must be a dict such as {{'seed': 1}}")
        found.append({str(field): _plain(value) for field, value in point.items()})
    if not found:
        raise UsageError("the sweep is empty: sweep() of the config file yields no point")
    return found


def _fields(base: Mapping[str, Any], point: Point, number: int) -> dict[str, Any]:
    """Returns the flat fields of the trial at a point, checked."""
    try:
        if "seeds" in point:
            raise UsageError("config.seeds makes several runs of one; a point of a sweep has a seed")
        for field in point:
            settings.rule_of(field)
        point |= {field: float(value) for field, value in point.items() if type(value) is int and type(base[field]) is float}
        fields = {**base, **point}
        settings.check(config_of(fields))
    except UsageError as error:
        raise UsageError(f"point {number} ({described(point)}): {error}") from None
    return fields


def _plain(value: Any) -> Any:
    """Returns the Python number of a NumPy number, and the tuple of a list."""
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        return value.item()
    return tuple(value) if isinstance(value, list) else value


def _twice(number: int, point: Point, earlier: int, other: Point) -> str:
    free = [field for field in settings.FREE if point.get(field) != other.get(field)]
    why = f": {' and '.join(free)} change{'s' * (len(free) == 1)} no result" if free else ""
    return f"point {number} ({described(point)}) is the same trial as point {earlier} ({described(other)}){why}"


def varied(trials: Sequence[Trial]) -> list[str]:
    """Returns the fields in which trials differ, in the order of their points; all fields of a single trial's point."""
    fields = list(dict.fromkeys(field for trial in trials for field in trial.point))
    if len(trials) == 1:
        return fields
    return [field for field in fields if any(trial.fields[field] != trials[0].fields[field] for trial in trials)]
