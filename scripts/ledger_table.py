"""Prints a table of the accuracies of runs in ledgers, a row for each model: what the pages of `docs/` show.

    python scripts/ledger_table.py --data=verdicts --by=model.positions docs/positions/runs
    python scripts/ledger_table.py --data=imdb --by=model.body,model.cell docs/complexity/runs docs/reproduction/runs

Accuracies are in percent: the mean over n seeds ± the standard deviation of a sample, which needs two seeds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.errors import UsageError
from experiments.report import runs, statistics, tables
from experiments.settings import RULES

METRICS = {
    "final_val_accuracy": "validation, last epoch",
    "best_val_accuracy": "validation, best epoch",
    "test_accuracy": "test, last epoch",
}


def table(paths: Sequence[str], data: str, by: Sequence[str]) -> str:
    """The table of the finished runs.

    Args:
      paths: ledgers, their entries or run folders.
      data: the corpus of the runs that count.
      by: the fields of the config whose values tell the rows apart. Runs with the same values and the same seed count once.
    """
    groups: dict[tuple[str, ...], dict[int, runs.Run]] = {}
    for run in runs.read(paths):
        if run.state == "finished" and run.config["data.name"] == data:
            key = tuple(_value(run, field) for field in by)
            groups.setdefault(key, {}).setdefault(run.config["seed"], run)
    header = [*(field.rpartition(".")[2] for field in by), "n", *METRICS.values(), "parameters"]
    body = [
        [*key, str(len(seeds)), *(_spread(seeds, metric) for metric in METRICS), _size(seeds)] for key, seeds in groups.items()
    ]
    return tables.markdown(header, sorted(body))


def _value(run: runs.Run, field: str) -> str:
    """Returns the value of a field, or nothing where the body of the run does not have it."""
    return "" if field == "model.cell" and run.config["model.body"] != "recurrent" else str(run.config[field])


def _spread(seeds: dict[int, runs.Run], metric: str) -> str:
    found = statistics.summary([100 * run.result[metric] for run in seeds.values()])
    assert found is not None
    return f"{found.mean:.2f}" if found.sd is None else f"{found.mean:.2f} ± {found.sd:.2f}"


def _size(seeds: dict[int, runs.Run]) -> str:
    return f"{next(iter(seeds.values())).result['parameters']:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--by", required=True, help="fields of the config, with commas between them")
    parser.add_argument("runs", nargs="+")
    options = parser.parse_args()
    by = options.by.split(",")
    for field in by:
        if field not in RULES:
            parser.error(f"--by={options.by}: {field} is not a field of the config")
    try:
        print(table(options.runs, options.data, by))
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
