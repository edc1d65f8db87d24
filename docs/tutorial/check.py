"""Checks the exercises of the tutorial: `python docs/tutorial/check.py [FILE]`.

FILE is docs/tutorial/exercises.py if not given. The expected numbers were worked out by hand. The exit code is 0 if all
exercises are right, else 1.
"""

import math
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    exercise: str
    arguments: tuple[Any, ...]
    expected: Any


LN2, LN3 = math.log(2), math.log(3)
EYE, ZERO = [[1.0, 0.0], [0.0, 1.0]], [[0.0], [0.0]]
CASES = [
    Case("score", ([1.0, 2.0], [3.0, 1.0]), 5.0),
    Case("score", ([1.0, -1.0, 2.0], [4.0, 3.0, 0.5]), 2.0),
    Case("softmax", ([LN2, 0.0, 0.0],), [0.5, 0.25, 0.25]),
    Case("softmax", ([1000.0, 1000.0],), [0.5, 0.5]),
    Case("softmax", ([-1000.0, LN3 - 1000.0],), [0.25, 0.75]),
    Case("masked_softmax", ([LN2, 0.0, 0.0], [True, True, False]), [2 / 3, 1 / 3, 0.0]),
    Case("masked_softmax", ([1000.0, 0.0, LN3], [False, True, True]), [0.0, 0.25, 0.75]),
    Case("masked_softmax", ([1.0, 2.0], [False, False]), [0.0, 0.0]),
    Case("gaussian_score", ([1.0, 2.0], [3.0, 1.0], 1.0), -2.5),
    Case("gaussian_score", ([1.0, 2.0], [3.0, 1.0], 2.0), -0.625),
    # Queries 1 and 0, keys 0 and ln 3: the weights are 1/4 and 3/4, then 1/2 and 1/2. The values are 4 and 8.
    Case("self_attention", (EYE, [[1.0], [0.0]], [[0.0], [LN3]], [[4.0], [8.0]]), [[7.0], [6.0]]),
    # All scores are 0, so that both outputs are the mean of the values.
    Case("self_attention", (EYE, ZERO, ZERO, [[1.0, 5.0], [3.0, 9.0]]), [[2.0, 7.0], [2.0, 7.0]]),
    Case("split_heads", ([[1, 2, 3, 4], [5, 6, 7, 8]], 2), [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    Case("split_heads", ([[1, 2, 3, 4, 5, 6]], 3), [[[1, 2], [3, 4], [5, 6]]]),
    Case("sinusoidal", (2, 2), [[0.0, 1.0], [0.8414710, 0.5403023]]),
    # The second pair is slower by 10000^(2/4) = 100.
    Case("sinusoidal", (2, 4), [[0.0, 1.0, 0.0, 1.0], [0.8414710, 0.5403023, 0.0099998, 0.9999500]]),
    Case("layer_norm", ([1.0, 3.0],), [-1.0, 1.0]),
    # The mean is 2, and the variance (4 + 4 + 0 + 0) / 4 = 2.
    Case("layer_norm", ([0.0, 4.0, 2.0, 2.0],), [-math.sqrt(2), math.sqrt(2), 0.0, 0.0]),
    Case("layer_norm", ([5.0, 5.0],), [0.0, 0.0]),
    Case("cross_entropy", ([0.0, 0.0], 1), LN2),
    Case("cross_entropy", ([LN3, 0.0], 1), 2 * LN2),
    Case("cross_entropy", ([1000.0, 0.0], 1), 1000.0),
    Case("entropy", ([0.5, 0.25, 0.25],), 1.5 * LN2),
    Case("entropy", ([1.0, 0.0],), 0.0),
]
EXERCISES = list(dict.fromkeys(case.exercise for case in CASES))


def fault(function: Any, case: Case) -> str | None:
    """What is wrong with an answer, in one line; None if it is right."""
    call = f"{case.exercise}({', '.join(map(repr, case.arguments))})"
    try:
        with warnings.catch_warnings(action="ignore"):  # an overflow shows in the result
            answer = function(*(np.array(x, float) if case.exercise == "layer_norm" else x for x in case.arguments))
    except NotImplementedError:
        return "not written yet"
    except Exception as error:
        return f"{call} raises {type(error).__name__}: {error}"
    try:
        found, expected = np.asarray(answer, float), np.asarray(case.expected, float)
    except (TypeError, ValueError):
        return f"{call} is {answer!r}, which is no array of numbers"
    if found.shape != expected.shape:
        return f"{call} has the shape {found.shape}, and not {expected.shape}"
    if not np.allclose(found, expected, atol=1e-5):
        return f"{call} is {found.tolist()}, and not {expected.round(6).tolist()}"
    return None


def faults(functions: dict[str, Any]) -> dict[str, str | None]:
    """The first fault of each exercise, None for those that are right."""
    found = {}
    for name in EXERCISES:
        cases = (
            [fault(functions[name], case) for case in CASES if case.exercise == name] if name in functions else ["is missing"]
        )
        found[name] = next((each for each in cases if each), None)
    return found


def main(arguments: list[str]) -> int:
    file = Path(arguments[0]) if arguments else Path(__file__).with_name("exercises.py")
    if len(arguments) > 1 or not file.is_file():
        print(f"error: {' '.join(arguments)} is not a file: it must be one Python file with the exercises", file=sys.stderr)
        return 2
    found = faults(runpy.run_path(str(file)))
    for page, (name, wrong) in enumerate(found.items(), 1):
        print(f"{page:2} {name:15} {wrong or 'right'}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
