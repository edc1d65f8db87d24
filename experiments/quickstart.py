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
        (folder / run_folder.RESULT).unlink(missing_ok=True)  # each quickstart starts afresh
        results[model] = train.train(settings.load_page(model, "verdicts"), folder)
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
    print("\nOnly the model that knows positions can tell who said what of whom: word order decides here.")
    print(f"The curves are in {workdir / 'curves.png'}; all of it took {time.monotonic() - started:.0f} s.")
