"""The four classifiers on the embedded corpus: no network, two minutes."""

import time
from pathlib import Path

from experiments import report, run_folder, settings, train


def quickstart(workdir: Path) -> None:
    """Trains each model into its own folder under `workdir`, prints the table of results and draws `curves.png`."""
    started, results, curves = time.monotonic(), {}, {}
    for model in settings.MODELS:
        print(f"\n{model}", flush=True)
        folder = workdir / model
        config = settings.load_page(model, "verdicts")
        if run_folder.is_finished(folder, config):  # each quickstart starts afresh, over its own runs alone
            (folder / run_folder.RESULT).unlink()
        results[model] = train.train(config, folder, model)
        curves[model] = [run_folder.read_rows(folder)]
    report.draw_curves(workdir, curves)
    rows = [
        [
            model,
            f"{r['parameters']:,}",
            f"{r['final_val_accuracy']:.3f}",
            f"{r['test_accuracy']:.3f}",
            f"{r['train_seconds']:.1f}",
        ]
        for model, r in results.items()
    ]
    print("\n" + report.table(["model", "parameters", "val. accuracy", "test accuracy", "train seconds"], rows))
    print(
        "\nEvery review has a twin of the same words in another order and with the other label:"
        " without positions, a half is the most."
    )
    print(f"The curves are in {workdir / 'curves.png'}; all of it took {time.monotonic() - started:.0f} s.")
