"""Test accuracy on the embedded corpus, over seeds.

    python scripts/verdicts_accuracy.py --seeds 5

The models are those of `make quickstart` and transformer_positional, which has learned positions; each seed initialises and
trains them anew on the same corpus. "bag of words" is scikit-learn's logistic regression on word counts, for which each seed
makes a new corpus.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from experiments import quickstart, settings
from experiments.data import verdicts
from experiments.machine import devices
from experiments.report import tables
from experiments.training import train


def bag_of_words(seed: int) -> float:
    """Test accuracy of the logistic regression on a corpus made from `seed`."""
    splits = verdicts.reviews(seed)
    (texts, labels), (test_texts, test_labels) = (zip(*splits[name], strict=True) for name in ("train", "test"))
    counts = CountVectorizer()
    model = LogisticRegression(max_iter=1000).fit(counts.fit_transform(texts), labels)
    return float(model.score(counts.transform(test_texts), test_labels))


def classifier(config: settings.Config, seed: int) -> float:
    """Test accuracy of a classifier on the embedded corpus."""
    config.seed = seed
    with tempfile.TemporaryDirectory() as folder:
        return train.train(config, Path(folder) / "run", config.model.body)["test_accuracy"]


def row(name: str, accuracies: Sequence[float]) -> list[str]:
    return [name, f"{statistics.mean(accuracies):.4f}", f"{min(accuracies):.4f}", f"{max(accuracies):.4f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    devices.start()
    rows = [row("bag of words", [bag_of_words(seed) for seed in seeds])]
    configs = {model.name: model.config() for model in quickstart.MODELS}
    configs["transformer_positional"] = settings.load_page("transformer_positional", "verdicts")
    rows += [row(name, [classifier(config, seed) for seed in seeds]) for name, config in configs.items()]
    print("\n" + tables.markdown([f"test accuracy, {len(seeds)} seeds", "mean", "min", "max"], rows))


if __name__ == "__main__":
    main()
