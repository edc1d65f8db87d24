"""The tables of the reproduction."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report import tables
from experiments.reproduction import statistics
from experiments.reproduction.statistics import Rows
from experiments.storage.ledger import Finished

_ACCURACIES = ("final_val_accuracy", "best_val_accuracy", "test_accuracy")


def accuracies(runs: Mapping[str, Sequence[Finished]], blog: Mapping[str, Rows]) -> str:
    """Returns the table of the accuracies in percent. Ours are the mean over the seeds, with the lowest and the highest."""
    lines = []
    for model, seeds in runs.items():
        theirs = [100 * row["val_accuracy"] for row in blog[model]]
        final, best, test = (_spread([100 * run.result[key] for run in seeds], 2) for key in _ACCURACIES)
        lines.append([model, f"{theirs[-1]:.2f}", final, f"{max(theirs):.2f}", best, test])
    header = ["validation accuracy, %", "blog, final", "ours, final", "blog, best", "ours, best", "ours, test"]
    return tables.markdown(header, lines)


def comparison(deviations: Mapping[str, np.ndarray]) -> str:
    """Returns the table of the shares and the p-values, with a line that tells how small those can be.

    Args:
      deviations: What `statistics.deviations` gives for each model.
    """
    counts = {model: statistics.inside(values) for model, values in deviations.items()}
    epochs = {model: values.shape[1] for model, values in deviations.items()}
    places = {
        model: [statistics.places(statistic(values)) for statistic in (statistics.mean_square, statistics.largest)]
        for model, values in deviations.items()
    }
    curves = len(next(iter(counts.values())))
    lines = []
    for model in deviations:
        p_values = [f"{place[0] / curves:.3f}" for place in places[model]]
        lines.append([model, str(epochs[model]), *_inside(counts[model]), *p_values])
    in_all = sum(counts.values(), np.zeros_like(next(iter(counts.values()))))
    together = [f"{statistics.combined(by_model):.3f}" for by_model in zip(*places.values(), strict=True)]
    lines.append(["all", str(sum(epochs.values())), *_inside(in_all), *together])
    header = ["epochs inside", "of", "loss: blog", "our seeds", "accuracy: blog", "our seeds", "p, mean square", "p, largest"]
    smallest = f"{1 / curves:.3f} for a model and {curves ** -len(deviations):.1g} for all"
    related = f"{statistics.correlation(list(deviations.values())):+.2f}"
    return (
        f"{tables.markdown(header, lines)}\n\n"
        f"Seeds 0 to {curves - 2}. The smallest possible p-value is {smallest}. "
        f"The correlation of a seed's curves between two models is {related}."
    )


def ranks(curves: Mapping[str, np.ndarray], deviations: Mapping[str, np.ndarray]) -> str:
    """Returns the lines of `ranks.csv`: the blog's rank and deviation at each epoch, among our seeds and itself."""
    names = [f"{column}_{what}" for column in statistics.COLUMNS for what in ("rank", "deviation")]
    lines = [",".join(["model", "epoch", "curves", *names])]
    for model, values in curves.items():
        pairs = zip(statistics.ranks(values), deviations[model][0], strict=True)
        for epoch, (rank, deviation) in enumerate(pairs, start=1):
            cells = [cell for r, d in zip(rank, deviation, strict=True) for cell in (f"{r:g}", f"{d:.3f}")]
            lines.append(",".join([model, str(epoch), str(len(values)), *cells]))
    return "\n".join(lines) + "\n"


def _inside(counts: np.ndarray) -> list[str]:
    """The cells of the epochs inside, `[1 + n, columns]`: for each column the blog's and our seeds'."""
    return [cell for blog, *seeds in counts.T.tolist() for cell in (str(blog), _spread(seeds, 1, 0))]


def _spread(values: Sequence[float], digits: int, of_ends: int | None = None) -> str:
    ends = digits if of_ends is None else of_ends
    return f"{sum(values) / len(values):.{digits}f} ({min(values):.{ends}f} to {max(values):.{ends}f})"
