"""In how many of the test dates that a run of `dates` decodes right its attention also looks at the right places.

python scripts/seq2seq_alignment.py runs/dates

The weights are summed over each field of the source (the characters of day, month and year) and averaged over the characters
of each field of the output. A date counts as aligned if for each field of the output the largest of the three sums is that of
the same field of the source. Weights of characters that belong to no field, such as spaces and the weekday, do not count.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import experiments
from experiments import pair_predict
from experiments.data import pair_dates
from experiments.data.pair_dates import FIELDS, OUTPUT


def shares(weights: np.ndarray, spans: Mapping[str, tuple[int, int]], left_out: int = 0) -> np.ndarray:
    """Returns how much each field of the output looks at each field of the source, `[3, 3]`, both in the order of FIELDS.

    Args:
      weights: `[U, S]`.
      spans: The characters of the source that say each field.
      left_out: Characters at the start of the source that the model does not read.
    """
    columns = [weights[:, max(0, spans[f][0] - left_out) : max(0, spans[f][1] - left_out)].sum(1) for f in FIELDS]
    by_character = np.stack(columns, 1)
    return np.stack([by_character[OUTPUT[field]].mean(0) for field in FIELDS])


def aligned(weights: np.ndarray, spans: Mapping[str, tuple[int, int]], left_out: int = 0) -> bool:
    """Returns whether each field of the output looks most at its own field of the source."""
    return bool(np.all(shares(weights, spans, left_out).argmax(1) == np.arange(len(FIELDS))))


def main(folder: str) -> None:
    run = experiments.load(folder)
    examples = pair_dates.examples()["test"]
    correct, right = 0, 0
    total = np.zeros((len(FIELDS), len(FIELDS)))
    answers = pair_predict.answers(run, (example.source.encode() for example in examples), batch_size=250)
    for example, answer in zip(examples, answers, strict=True):
        if run.tokenizer.text(answer.targets[0][0]) == example.target:
            weights, left_out = next(iter(answer.maps.values())), answer.source.left_out
            correct += 1
            right += aligned(weights, example.spans, left_out)
            total += shares(weights, example.spans, left_out)
    print(f"{len(examples):,} test dates, {correct:,} decoded right ({correct / len(examples):.2%})")
    print(f"{right:,} of these aligned ({right / max(1, correct):.2%})")
    print("output   " + "".join(f"{field:>8}" for field in FIELDS) + "   elsewhere")
    for field, row in zip(FIELDS, total / max(1, correct), strict=True):
        print(f"{field:<9}" + "".join(f"{share:8.3f}" for share in row) + f"{1 - row.sum():12.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
