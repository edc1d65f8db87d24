# pyright: reportOptionalMemberAccess=false
"""The command `report`: its numbers against hand-worked ones, runs in any state, hostile strings, and the page in a browser."""

import csv
import dataclasses
import html.parser
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import browser
import numpy as np
import pytest
import scipy.stats

from experiments import settings
from experiments.command_line import command_flags, commands
from experiments.cost import flops, train_step
from experiments.report import charts, groups, heads, pages, published, results, runs, statistics, svg
from experiments.storage import files, lock
from experiments.storage.names import CURVES
from experiments.training import build
from scripts import bench_report

ROOT = Path(__file__).parent.parent
ACCURACIES = (0.80, 0.84, 0.86, 0.90)  # of the seeds 0 to 3; mean 0.85, standard deviation √(0.0052 / 3) = 0.0416333
HOSTILE = "<img src=x onerror=alert(1)>|`*a_b_*`\x1b[31m\n\u202e&amp;"


def config(page: str = "transformer", **fields: Any) -> dict[str, Any]:
    """The flat config of a run."""
    return settings.flatten(settings.load_page(page, "verdicts")) | {"epochs": 2} | fields


def rows(accuracy: float, epochs: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "step": 250 * epoch,
            "train_loss": 1 - accuracy,
            "train_accuracy": accuracy,
            "val_loss": 2 - accuracy - 0.1 * (epoch == epochs),
            "val_accuracy": accuracy - 0.01 * (epoch != epochs),
            "examples_per_second": 1000.0 * epoch,
            "real_tokens_per_second": 1e4,
            "step_milliseconds": 2.0,
            "compile_seconds": 1.5,
        }
        for epoch in range(1, epochs + 1)
    ]


def result(metrics: Sequence[Mapping[str, Any]], label: str = "transformer", **more: Any) -> dict[str, Any]:
    last = metrics[-1]
    told = {"label": label, "parameters": 4882, "epochs": len(metrics), "best_epoch": len(metrics)}
    told |= {f"{which}_{name}": last[name] for which in ("best", "final") for name in ("val_loss", "val_accuracy")}
    return told | {"test_loss": 0.5, "test_accuracy": last["val_accuracy"] - 0.02, "device": "cpu × 2"} | more


def write(folder: Path, flat: dict[str, Any], metrics: Sequence[Any], told: dict[str, Any] | None, **others: Any) -> Path:
    """A run folder; `others` are the contents of its other files by the first part of their names."""
    folder.mkdir(parents=True)
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        group, _, field = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[field] = value
    (folder / "config.json").write_text(json.dumps(nested))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if told is not None:
        (folder / "result.json").write_text(json.dumps(told))
    for name, content in others.items():
        suffix = "jsonl" if name == "provenance" else "json"
        (folder / f"{name}.{suffix}").write_text(json.dumps(content) + "\n")
    return folder


def finished(folder: Path, accuracy: float, seed: int, label: str = "transformer", epochs: int = 2, **fields: Any) -> Path:
    metrics = rows(accuracy, epochs)
    return write(folder, config(seed=seed, **fields), metrics, result(metrics, label))


def four_seeds(folder: Path, shift: float = 0.0, seeds: Sequence[int] = range(4), **fields: Any) -> Path:
    for seed in seeds:
        finished(folder / f"seed_{seed}", ACCURACIES[seed] + shift * (1 + seed), seed, **fields)
    return folder


def report(out: Path, *arguments: Any) -> dict[str, str]:
    """The files of a report through the command line."""
    assert commands.main(["report", *map(str, arguments), f"--out={out}"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["curves.csv", "report.html", "report.md", "runs.csv"]
    return {path.name: path.read_text() for path in out.iterdir()}


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def table(markdown: str, section: str) -> dict[str, list[str]]:
    """The first table of a section of report.md: the cells of each row by its first one."""
    body = markdown.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines[: next((i for i, line in enumerate(lines) if not line), len(lines))]}) >= 1
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


class Page(html.parser.HTMLParser):
    """The elements, the attributes and the text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_mean_and_its_intervals():
    """Worked by hand: the quantile of t with three degrees of freedom is 3.182446, and there are 4⁴ resamples."""
    found = statistics.summary(ACCURACIES)
    assert found.n == 4
    assert (found.mean, found.sd) == pytest.approx((0.85, 0.0416333), abs=1e-6)
    assert found.student == pytest.approx((0.85 - 0.0662477, 0.85 + 0.0662477), abs=1e-6)
    means = sorted(sum(each) / 4 for each in itertools.product(ACCURACIES, repeat=4))
    assert found.bootstrap == pytest.approx((means[6], means[249]))  # of 256, 2.5% are 6.4
    theirs = scipy.stats.bootstrap((ACCURACIES,), np.mean, n_resamples=20_000, method="percentile", rng=0)
    assert found.bootstrap == pytest.approx(tuple(theirs.confidence_interval), abs=0.003)


def test_the_intervals_of_many_seeds():
    values = np.random.default_rng(3).normal(size=40)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    found = statistics.summary(values)
    assert found.bootstrap == pytest.approx(tuple(theirs), abs=0.02)
    assert found.student == pytest.approx(scipy.stats.t.interval(0.95, 39, values.mean(), scipy.stats.sem(values)))


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert statistics.summary([0.7]) == (1, 0.7, None, None, None)
    assert statistics.summary([]) is None
    assert results.spread(statistics.summary([0.7])) == "0.7000 (1)"


def test_paired_differences():
    """Of the seeds 1, 2 and 3 alone: 0.01, 0.02 and 0.06 have the mean 0.03 and the deviation √0.0007."""
    found = statistics.paired({1: 0.51, 2: 0.62, 3: 0.76, 7: 0.1}, {1: 0.50, 2: 0.60, 3: 0.70, 8: 0.2})
    assert found[:3] == pytest.approx((3, 0.03, 0.0264575), abs=1e-6)
    assert statistics.paired({1: 0.5}, {2: 0.5}) is None


@pytest.mark.parametrize("n", [2, 5])
def test_how_often_the_intervals_hold_the_mean(n: int):
    """As often as the report says, within four standard errors of 2,000 simulations."""
    drawn = np.random.default_rng(17).normal(3.0, 2.0, (2000, n))
    found = [statistics.summary(values) for values in drawn]
    for interval, expected in (("student", 0.95), ("bootstrap", results.COVERAGE[n] / 100)):
        held = np.mean([getattr(each, interval).low <= 3.0 <= getattr(each, interval).high for each in found])
        assert held == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 2000) ** 0.5 + 0.005)


def test_means_differences_and_groups(tmp_path: Path):
    """Two groups of four seeds: the second is 0.01, 0.02, 0.03 and 0.04 better, and differs in the heads alone."""
    four_seeds(tmp_path / "runs" / "a")
    four_seeds(tmp_path / "runs" / "b", 0.01, **{"model.num_heads": 4})
    written = report(tmp_path / "out", tmp_path / "runs")
    means = table(written["report.md"], "Results")
    ours = means["transformer num\\_heads=4" if "transformer num\\_heads=4" in means else "transformer num_heads=4"]
    assert means["transformer num_heads=2"][0].startswith("0.8500 ± 0.0416 (4)<br>t 0.7838 to 0.9162<br>b 0.81")
    assert ours[0].startswith("0.8750 ± 0.0545 (4)")
    differences = table(written["report.md"], "Differences by seed")
    assert list(differences)[2:] == ["transformer num_heads=4"]
    # 0.01, 0.02, 0.03, 0.04: the deviation is √(0.0005 / 3)
    assert differences["transformer num_heads=4"][0].startswith("+0.0250 ± 0.0129 (4)<br>t +0.0045 to +0.0455<br>b +0.0")
    other = report(tmp_path / "other", tmp_path / "runs", "--baseline=transformer num_heads=4")
    assert table(other["report.md"], "Differences by seed")["transformer num_heads=2"][0].startswith("-0.0250 ± 0.0129 (4)")
    assert "| seeds | num_heads |" in re.sub(" +", " ", written["report.md"])


def test_the_same_runs_give_the_same_bytes(tmp_path: Path):
    four_seeds(tmp_path / "runs")
    assert report(tmp_path / "a", tmp_path / "runs") == report(tmp_path / "b", tmp_path / "runs")


def test_a_run_counts_once(tmp_path: Path):
    """Given twice, copied, or repeated: seed 0 is one seed."""
    run = finished(tmp_path / "runs" / "a", 0.8, 0)
    shutil.copytree(run, tmp_path / "runs" / "b")
    finished(tmp_path / "runs" / "c", 0.9, 1, devices=8)  # changes no result
    written = report(tmp_path / "out", tmp_path / "runs", run, tmp_path / "runs" / "..")
    assert len(lines_of(written["runs.csv"])) == 3
    assert table(written["report.md"], "Results")["transformer"][0].startswith("0.8500 ± 0.0707 (2)")
    assert "1 finished run repeats" in written["report.md"]


def test_names_of_groups():
    """What differs from other groups of the label, but no default of the page that most of them have."""

    def run(label: str, page: str, **fields: Any) -> runs.Run:
        metrics = rows(0.8)
        return runs.Run("r", config(page, **fields), metrics, result(metrics, label))

    found = [
        run("transformer", "transformer"),
        run("transformer", "transformer", **{"model.num_heads": 4}),
        run("transformer", "transformer", learning_rate=1.0),
        run("transformer", "transformer", **{"model.num_heads": "4"}),
        run("single_head", "single_head"),
    ]
    names = [group.name for group in groups.grouped(found)]
    assert names == [
        "transformer num_heads=2",
        "transformer num_heads=4",
        "transformer num_heads=4 (2)",
        "transformer learning_rate=1.0 num_heads=2",
        "single_head",
    ]
    assert runs.Run("r").label is None
    unlabelled = groups.grouped([runs.Run("r", config("multi_head", seed=3))])
    assert [group.label for group in unlabelled] == ["multi_head"], "the page with the nearest defaults"


def test_a_sweep_of_several_kinds_of_model_is_named_after_their_pages():
    """Whatever the order of its folders. A label of one kind of model is kept."""

    def run(page: str, label: str, heads: int) -> runs.Run:
        metrics = rows(0.8)
        return runs.Run("r", config(page, **{"model.num_heads": heads, "model.key_dim": 16}), metrics, result(metrics, label))

    shapes = [("multi_head", 8), ("transformer", 10), ("multi_head", 1), ("transformer", 2), ("multi_head", 10)]
    found = [run(page, "ablation", heads) for page, heads in shapes] + [run("transformer", "mine", 5)]
    assert [group.name for group in groups.grouped(found)] == [
        "multi_head num_heads=1",
        "multi_head num_heads=8",
        "multi_head num_heads=10",
        "transformer num_heads=2",
        "transformer num_heads=10",
        "mine",
    ]


BROKEN = {"epoch": 2, "step": 3}
ENDINGS = {  # the files beside config.json, the rows, and what the report says: state, epochs, exit code, reason
    "killed": ({"attempt": {"last_step": 250}}, rows(0.8)[:1], ("unfinished", 1, "", "killed: it left no record of its end")),
    "stopped": (
        {"provenance": {"exit_code": 75, "reason": "stopped by SIGTERM", "last_step": 250}},
        rows(0.8)[:1],
        ("unfinished", 1, "75", "stopped by SIGTERM"),
    ),
    "failed": ({"provenance": {"exit_code": 1, "reason": "disk full"}}, [], ("failed", 0, "1", "disk full")),
    "diverged": (
        {"diverged": {"epoch": 1, "step": 4, "loss": "nan"}, "provenance": {"exit_code": 3, "reason": "step 4"}},
        [],
        ("diverged", 0, "3", "step 4"),
    ),
    "diverged, killed": (
        {"diverged": {"epoch": 1, "step": 4, "loss": "nan"}},
        [],
        ("diverged", 0, "", "epoch 1, step 4: loss nan, or its gradient, is not finite"),
    ),
    "no record": ({}, [], ("unfinished", 0, "", "it left no record of an attempt")),
    "a bad row": ({}, [*rows(0.8)[:1], BROKEN], ("damaged", 1, "", "metrics.jsonl, line 2: train_loss is missing")),
    "a lost row": ({}, rows(0.8)[1:], ("damaged", 0, "", "metrics.jsonl, line 1: epoch 2 where 1 must be")),
    "a bad record": ({"provenance": [1]}, [], ("unfinished", 0, "", "provenance.jsonl, line 1 is not a JSON object")),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_run_that_is_not_finished(name: str, tmp_path: Path):
    """Alone, and beside a finished one, in which mean it does not count."""
    others, metrics, (state, epochs, code, reason) = ENDINGS[name]
    write(tmp_path / "runs" / "b", config(seed=1), metrics, None, **others)
    for expected in ("–", "0.8000 (1)"):
        written = report(tmp_path / "out", tmp_path / "runs")
        line = next(line for line in lines_of(written["runs.csv"]) if line["run"].endswith("b"))
        assert (line["state"], int(line["epochs_done"]), line["exit_code"]) == (state, epochs, code)
        assert reason in line["reason"]
        assert reason in Page(written["report.html"]).text
        assert table(written["report.md"], "Results")["transformer"][0] == expected
        if expected == "–":
            finished(tmp_path / "runs" / "a", 0.8, 0)


def test_a_run_that_is_running(tmp_path: Path):
    folder = write(tmp_path / "run", config(), rows(0.8)[:1], None, attempt={"last_step": 1})
    with lock.hold(folder):
        (line,) = lines_of(report(tmp_path / "out", folder)["runs.csv"])
    assert (line["state"], line["saved_step"]) == ("running", "1")
    assert re.match(r"in use by process \d+ on ", line["reason"])


def _cut(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


DAMAGES = {
    "config cut": (_cut("config.json", '{"seed": 1,'), "config.json is not JSON: Expecting property name"),
    "config of a list": (_cut("config.json", "[]"), "config.json is not a JSON object"),
    "config without fields": (_cut("config.json", "{}"), "config.json: "),
    "config deep": (_cut("config.json", "[" * 100_000), "config.json is not JSON: "),
    "config in bytes": (lambda folder: (folder / "config.json").write_bytes(b"\xff\x00"), "config.json is not JSON: "),
    "config gone": (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read: No such file"),
    "result cut": (_cut("result.json", '{"label": "a"'), "result.json is not JSON: "),
    "result without numbers": (_cut("result.json", "{}"), "result.json: final_val_loss is missing"),
    "result of NaN": (
        lambda folder: _cut("result.json", json.dumps(result(rows(0.8), test_accuracy=float("nan"))))(folder),
        "result.json: test_accuracy=nan must be a number",
    ),
    "metrics gone": (lambda folder: (folder / "metrics.jsonl").unlink(), "metrics.jsonl cannot be read"),
    "metrics short": (
        lambda folder: _cut("metrics.jsonl", json.dumps(rows(0.8)[0]) + '\n{"epoch": 2, "tr')(folder),
        "it has 1 of the 2 epochs that its result tells of",
    ),
    "metrics of text": (_cut("metrics.jsonl", "hello\n"), "metrics.jsonl, line 1 is not JSON: Expecting value"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run(name: str, tmp_path: Path):
    """It is told in one line, counts in no mean, and harms no other run."""
    damage, reason = DAMAGES[name]
    damage(finished(tmp_path / "runs" / "bad", 0.8, 1))
    finished(tmp_path / "runs" / "good", 0.9, 0)
    written = report(tmp_path / "out", tmp_path / "runs")
    bad = next(line for line in lines_of(written["runs.csv"]) if line["run"].endswith("bad"))
    assert bad["state"] == "damaged"
    assert bad["reason"].startswith(reason)
    assert table(written["report.md"], "Results")["transformer"][0] == "0.9000 (1)"
    assert "1 of 2 runs are not finished, or are damaged" in written["report.md"]


def test_only_damaged_runs(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("")
    written = report(tmp_path / "out", tmp_path / "run")
    assert "No config can be read." in written["report.md"]
    assert lines_of(written["curves.csv"]) == []


def entry(path: Path, accuracy: float, seed: int, **fields: Any) -> Path:
    metrics = rows(accuracy)
    lines = [{"config": config(seed=seed, **fields), "result": result(metrics)}, *metrics]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


MEASURES = {  # of the seeds 0 and 1, on 4 + 5 + 2 texts
    0: {"macro_f1": 0.6, "ece": 0.125, "recall": {"sports": 0.75, "a|b": 1.0, "<i>": 0.0}},
    1: {"macro_f1": 0.8, "ece": 0.375, "recall": {"sports": 1.0, "a|b": 0.8, "<i>": None}},
}
CONFUSIONS = {0: [[3, 0, 1], [0, 5, 0], [0, 2, 0]], 1: [[4, 0, 0], [0, 4, 1], [0, 0, 0]]}


def measured(folder: Path, seed: int, **changed: Any) -> Path:
    metrics = rows(0.8)
    told = {"accuracy": 0.78, "confusion": CONFUSIONS[seed]} | MEASURES[seed] | changed
    return write(folder, config(seed=seed), metrics, result(metrics, test=told))


def test_measures_by_label(tmp_path: Path):
    """Means over the seeds, a recall that only one seed has, and the summed confusion: 7 of 8 sports are right, 1 is <i>."""
    measured(tmp_path / "runs" / "a", 0)
    measured(tmp_path / "runs" / "b", 1)
    finished(tmp_path / "runs" / "old", 0.7, 2)  # without measures
    written = report(tmp_path / "out", tmp_path / "runs")
    found = table(written["report.md"], "Labels")
    assert found["group"] == ["macro F1", "ECE", "sports", "a\\|b", "&lt;i&gt;"]
    assert found["transformer"] == [
        *("0.7000 ± 0.1414 (2)", "0.2500 ± 0.1768 (2)", "0.8750 ± 0.1768 (2)", "0.9000 ± 0.1414 (2)", "0.0000 (1)"),
    ]
    page = Page(written["report.html"])
    assert page.tags.isdisjoint({"i"})
    assert "sports as <i>: 1" in page.text
    cells = [float(value) for name, value in page.attributes if name == "fill-opacity"]
    assert cells == [0.438, 0.0, 0.062, 0.0, 0.45, 0.05, 0.0, 0.5, 0.0], "half of 7/8, 0, 1/8; 0, 9/10, 1/10; 0, 1, 0"
    assert [line["test_macro_f1"] for line in lines_of(written["runs.csv"])] == ["0.6", "0.8", ""]


def test_runs_of_pairs_of_texts(tmp_path: Path):
    """They have fields and measures of their own; beside a classifier, and with the command that repeats them."""
    flat = settings.flatten(settings.load_page("seq2seq_rnn", "dates")) | {"epochs": 2, "model.score": "dot"}
    metrics, measures = rows(0.8), {"exact_match": 0.78, "token_accuracy": 0.9, "by_target_length": {"10": [9, 7]}}
    write(tmp_path / "runs" / "a", flat, metrics, result(metrics, "seq2seq_rnn", test=measures))
    finished(tmp_path / "runs" / "b", 0.7, 0)
    written = report(tmp_path / "out", tmp_path / "runs")
    assert [line["state"] for line in lines_of(written["runs.csv"])] == ["finished", "finished"]
    means = table(written["report.md"], "Results")
    assert (means["seq2seq_rnn"][0], means["transformer"][0]) == (
        "0.8000 (1)",
        "0.7000 (1)",
    )
    assert "--config=configs/seq2seq_rnn.py:dates" in written["report.md"]
    assert "--config.model.score=dot" in written["report.md"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"macro_f1": None}, "test.macro_f1=None must be a number from 0 to 1"),
        ({"recall": []}, "test.recall must be an object with a number for each label"),
        ({"recall": {"sports": 2, "a": 0, "b": 0}}, "test.recall of 'sports' is 2 and must be a number from 0 to 1, or null"),
        ({"confusion": [[1, 2], [3]]}, "test.confusion must have a row for each label"),
    ],
)
def test_damaged_measures(changed: dict[str, Any], reason: str, tmp_path: Path):
    (line,) = lines_of(report(tmp_path / "out", measured(tmp_path / "run", 0, **changed))["runs.csv"])
    assert (line["state"], line["reason"].startswith(f"result.json: {reason}")) == ("damaged", True)


def test_ledger_files(tmp_path: Path):
    """One file, or a folder of them beside other files; a damaged one is told, and one from before some fields is read."""
    first = entry(tmp_path / "a.jsonl", 0.8, 0)
    entry(tmp_path / "b.jsonl", 0.9, 1)
    (tmp_path / "trials.jsonl").write_text('{"trial": 1}\n')
    (tmp_path / "c.jsonl").write_text('{"config": {')
    old = {name: value for name, value in config(seed=2).items() if name not in settings.LATER and name != "model.positions"}
    metrics = rows(0.7)
    lines = [{"config": old | {"model.learned_positions": False}, "result": result(metrics)}, *metrics]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (line,) = lines_of(report(tmp_path / "one", first)["runs.csv"])
    assert (line["run"], line["state"], line["config.seed"]) == (str(first), "finished", "0")
    written = report(tmp_path / "all", tmp_path)
    assert [line["state"] for line in lines_of(written["runs.csv"])] == ["finished", "finished", "damaged", "finished"]
    assert table(written["report.md"], "Results")["transformer"][0].startswith("0.8000 ± 0.1000 (3)")


def test_hostile_strings(tmp_path: Path):
    """Of folders, labels, configs, devices and reasons: no element, no control character, no extra column, no formula."""
    name = HOSTILE.replace("/", "")
    metrics = rows(0.8)
    told = result(metrics, "</script><script>alert(1)</script>" + HOSTILE, device=HOSTILE)
    write(tmp_path / name / "a", config(seed=0, init_from=HOSTILE), metrics, told)
    write(tmp_path / name / "b", config(seed=0), metrics, result(metrics, "=cmd()"))
    write(tmp_path / name / "c", config(seed=1), [], None, provenance={"exit_code": 1, "reason": HOSTILE})
    write(tmp_path / name / "d", config(seed=1) | {HOSTILE: 1}, [], None)
    (tmp_path / "curves.csv").write_text("model,epoch,val_loss\n<script>,1,0.5\n=cmd(),1,0.5\n")
    written = report(tmp_path / "out", tmp_path / name, f"--published={tmp_path / 'curves.csv'}")
    page = Page(written["report.html"])
    assert page.tags.isdisjoint({"script", "img", "iframe", "object"})
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [
        value for name, value in page.attributes if name in ("href", "src") and not (value or "").startswith(("#", "data:"))
    ]
    assert "<img src=x onerror=alert(1)>|`*a_b_*`\\x1b[31m\\n\\u202e&amp;" in page.text
    for content in written.values():
        assert all(character.isprintable() or character == "\n" for character in content)
    for line in written["report.md"].splitlines():
        assert not re.search(r"(?<!\\)<(?!br>)", line) or line.startswith("    "), (
            "only commands, in a block of code, may hold it"
        )
    header, *cells = (
        re.split(r"(?<!\\)\|", line) for line in written["report.md"].split("\n## Runs\n")[1].splitlines() if line[:1] == "|"
    )
    assert {len(each) for each in cells} == {len(header)}
    assert "'=cmd()" in {line["label"] for line in lines_of(written["runs.csv"])}


def test_csv_round_trip(tmp_path: Path):
    """Numbers come back with all their bits, and a run folder by its name."""
    accuracy = 0.1 + 0.7
    folder = finished(tmp_path / 'a, "b"', accuracy, 5, learning_rate=1e-05)
    written = report(tmp_path / "out", folder)
    (line,) = lines_of(written["runs.csv"])
    told = json.loads((folder / "result.json").read_text())
    assert line["run"] == str(folder)
    for name in ("final_val_loss", "best_val_accuracy", "test_accuracy", "parameters"):
        assert json.loads(line[name]) == told[name]
    assert (float(line["config.learning_rate"]), line["config.patience"], line["config.seed"]) == (1e-05, "", "5")
    assert float(line["examples_per_second"]) == 1500.0, "the median of 1000 and 2000"
    epochs = lines_of(written["curves.csv"])
    for read, row in zip(epochs, rows(accuracy), strict=True):
        assert {name: json.loads(read[name]) for name in row} == row
        assert (read["run"], read["group"], read["seed"]) == (str(folder), "transformer", "5")


def test_a_real_run(finished_run: Path, tmp_path: Path):
    """What `train` writes is read without damage."""
    written = report(tmp_path / "out", finished_run)
    (line,) = lines_of(written["runs.csv"])
    told = json.loads((finished_run / "result.json").read_text())
    assert (line["state"], line["label"], line["reason"]) == ("finished", "transformer", "")
    assert json.loads(line["test_accuracy"]) == told["test_accuracy"]
    assert "None: the run is finished." in written["report.md"]


def test_deviation_from_published_curves(tmp_path: Path):
    """The mean of 0.8 and 0.9 is 0.85; a published 0.86 is inside of their range, and 0.70 is not."""
    for seed, accuracy in enumerate((0.8, 0.9)):
        finished(tmp_path / "runs" / str(seed), accuracy, seed)
    path = tmp_path / "curves.csv"
    path.write_text(
        "model,epoch,train_accuracy,ms\ntransformer,1,0.86,3\ntransformer,2,0.70,3\ntransformer,9,0.9,3\nmore,1,1,1\n"
    )
    written = report(tmp_path / "out", tmp_path / "runs", f"--published={path}")
    body = written["report.md"].split("\n## Curves\n")[1].split("\n## ")[0]
    assert re.search(r"\| transformer +\| +– \| +\+0\.1500<br>epoch 2<br>inside at 1 of 2 \| +– \| +– \|", body)
    assert re.search(r"\| 1 +\| +– \| -0\.0100<br>ours 0\.8500<br>published 0\.8600 \|", body)
    assert "no finished run has this label: more." in body
    found = published.deviations(published.read(path)["transformer"], [rows(0.8), rows(0.9)], "train_accuracy")
    assert [(each.epoch, each.inside) for each in found] == [(1, True), (2, False)]
    assert 'class="published c1"' in written["report.html"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,epoch\na,1\n", " must have the columns model, epoch and some of train_loss"),
        ("", " must have the columns"),
        ("model,epoch,val_loss\na,x,1\n", ", line 2: epoch=x must be an integer"),
        ("model,epoch,val_loss\na,1,nan\n", ", line 2: val_loss=nan must be a number"),
        ("model,epoch,val_loss\na,1,0.5\na,1,0.5\n", ", line 3: epoch 1 of this model is there twice"),
        ("model,epoch,val_loss\na\n", ", line 2: epoch= must be an integer"),
        (b"model,epoch,val_loss\n\xff,1,1\n", " cannot be read: 'utf-8' codec"),
        (None, " cannot be read: No such file or directory"),
    ],
)
def test_bad_published_curves(content: str | bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "curves.csv"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    run = finished(tmp_path / "run", 0.8, 0)
    assert refused(capsys, run, f"--published={path}", f"--out={tmp_path / 'out'}").startswith(f"--published={path}{message}")
    assert not (tmp_path / "out").exists()


def refused(capsys: pytest.CaptureFixture, *arguments: Any) -> str:
    assert commands.main(["report", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err[:7]) == ("", 1, "error: ")
    return err[7:-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=@OUT"], "RUNS is missing: it must be a run folder, a folder with run folders below it, or a ledger file"),
        (["@RUN"], "--out is missing: it must be the folder of the report"),
        (["", "--out=@OUT"], "RUNS is empty: it must be a path"),
        (["nope", "--out=@OUT"], "RUNS=nope does not exist: it must be a run folder"),
        (["@RUN", "nope\0", "--out=@OUT"], "RUNS=nope\\x00 cannot be read: embedded null"),
        (["@EMPTY", "--out=@OUT"], "RUNS=@EMPTY holds no run: it must be a run folder"),
        (["@RUN/result.json", "--out=@OUT"], "RUNS=@RUN/result.json holds no run: the first line of a ledger file has"),
        (["@RUN/metrics.jsonl", "--out=@OUT"], "RUNS=@RUN/metrics.jsonl holds no run: the first line of a ledger file has"),
        (["@RUN", "--out=@RUN/config.json"], "--out=@RUN/config.json cannot be written: @RUN/config.json is not a folder"),
        (["@RUN", "--out=@RUN/config.json/x"], "--out=@RUN/config.json/x cannot be written: "),
        (["@RUN", "--out=" + "x" * 300], "--out=x"),
        (["@RUN", "--out=@OUT", "--baseline=x"], "--baseline=x must be the name of a group: 'transformer'"),
        (["@RUN", "--out=@OUT", "--baselin=x"], "--baselin is not a flag of this command; did you mean --baseline?"),
        (["@RUN", "--out=@OUT", "--published="], "--published is empty: it must be a path"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    finished(tmp_path / "run", 0.8, 0)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def placed(text: str) -> str:
        return re.sub("@(RUN|OUT|EMPTY)", lambda found: str(tmp_path / found[1].lower()), text)

    assert refused(capsys, *map(placed, arguments)).startswith(placed(message))
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def refuse(path: Path, _: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    run = finished(tmp_path / "run", 0.8, 0)
    monkeypatch.setattr(files, "write_whole", refuse)
    assert refused(capsys, run, f"--out={tmp_path / 'new'}") == f"--out={tmp_path / 'new'} cannot be written: Permission denied"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("seeds", "page"), [([3], "single_head"), ([0, 1, 7], "multi_head"), ([2], "unknown")])
def test_commands_make_the_same_config(seeds: list[int], page: str, tmp_path: Path):
    """Run by a shell, whose `python` writes down its arguments."""
    known = "transformer" if page == "unknown" else page
    fields = {"init_from": "it's\n$HOME <a>", "learning_rate": 1e-4, "patience": 3, "model.output_dims": [16]}
    made = config(known, **fields)
    line = pages.command(made, seeds, page, "a-b")
    recorded = subprocess.run(
        ["bash", "-c", "python() { printf '%s\\0' \"$@\" END; }\n" + line], capture_output=True, check=True, text=True
    ).stdout
    runs_of = [each.strip("\0").split("\0") for each in recorded.split("END")[:-1]]
    assert len(runs_of) == len(seeds)
    for seed, words in zip(seeds, runs_of, strict=True):
        assert words[:3] == ["-m", "experiments", "train"]
        assert f"--workdir=runs/a-b/seed_{seed}" in words
        source = next(word for word in words if word.startswith("--config=")).removeprefix("--config=")
        flags = [word for word in words if word.startswith("--config.")]
        read = settings.flatten(command_flags.read_config(str(ROOT / source), flags, {"config": None, "workdir": None}))
        assert pages.same(read, made | {"seed": seed})
        defaults = settings.flatten(settings.load_page(known, "verdicts"))
        changed = {name for name, value in made.items() if not pages.same(value, defaults[name])}
        assert {flag[9:].partition("=")[0] for flag in flags} == changed | {"seed"}, "only what differs"


def test_a_report_imports_no_jax(tmp_path: Path):
    entry(tmp_path / "a.jsonl", 0.8, 0)
    code = "import sys; from experiments.command_line.commands import main; main(sys.argv[1:]); print('jax' in sys.modules)"
    command = [sys.executable, "-c", code, "report", str(tmp_path), f"--out={tmp_path / 'out'}"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split()[-1] == "False"


def grouped(*changes: dict[str, Any]) -> list[groups.Group]:
    metrics = rows(0.8)
    told = result(metrics, vocabulary_size=98, max_length=24)
    return groups.grouped([runs.Run(f"run {i}", config(**change), metrics, told) for i, change in enumerate(changes)])


def test_heads_that_differ_alone(monkeypatch: pytest.MonkeyPatch):
    """The key_dim stays, or heads × key_dim does; a model is counted once, whatever its seeds and learning rates are."""
    counted = []
    monkeypatch.setattr(heads, "_flops", lambda group, *_: counted.append(group.name) or 1000)
    found = heads.series(
        grouped(
            {"model.num_heads": 1},
            {"model.num_heads": 2},
            {"model.num_heads": 1, "seed": 1},
            {"model.num_heads": 4, "model.key_dim": 8},
            {"model.num_heads": 1, "learning_rate": 1.0},
        )
    )
    assert [(each.kept, [point.heads for point in each.points]) for each in found] == [
        ("key_dim = 16", [1, 2]),
        ("num_heads × key_dim = 32", [2, 4]),
    ]
    assert len(counted) == 3
    assert heads.series(grouped({"seed": 0}, {"learning_rate": 1.0})) == [], "one number of heads"
    (mixed,) = heads.series(grouped({"model.num_heads": 1}, {"model.num_heads": 2, "learning_rate": 1.0}))
    assert (mixed.kept, len(mixed.points)) == ("", 2)


def test_series_of_heads_are_named_and_not_accidental(monkeypatch: pytest.MonkeyPatch):
    """Two widths, 4 and 16, have a shape with a key_dim of 2 each, and one with 4 each: those pairs are no series."""
    monkeypatch.setattr(heads, "_flops", lambda *_: 1000)
    shapes = [(1, 4), (2, 2), (4, 1), (1, 16), (2, 8), (4, 4), (8, 2)]
    one, *more = grouped(*({"model.num_heads": count, "model.key_dim": size} for count, size in shapes))
    assert [(each.kept, [point.heads for point in each.points]) for each in heads.series([one, *more])] == [
        ("num_heads × key_dim = 4", [1, 2, 4]),
        ("num_heads × key_dim = 16", [1, 2, 4, 8]),
    ]
    other = dataclasses.replace(one, label="other", name="other", config={**one.config, "model.body": "multi_head"})
    assert [each.kept for each in heads.series([one, *more, other])] == [
        "transformer, num_heads × key_dim = 4",
        "transformer, num_heads × key_dim = 16",
    ]


def test_flops_of_a_step(tmp_path: Path):
    """Those of the plan that `train` would make on one device, for a file whose labels the result alone tells.

    More heads cost more, and are in the table.
    """
    metrics = rows(0.8)
    measures = {"macro_f1": 0.5, "ece": 0.1, "recall": dict.fromkeys("abcde", 0.5), "confusion": None}
    for count in (1, 2):
        told = result(metrics, vocabulary_size=98, max_length=24, test=measures)
        fields = {"data.name": "csv", "data.path": "texts.csv", "model.num_classes": None, "model.num_heads": count}
        write(tmp_path / "runs" / str(count), config(**fields), metrics, told)
    wanted = settings.load_page("transformer", "verdicts")
    wanted.devices = 1
    plan = build.build_plan(wanted, build.Classifier(settings.model_config(wanted, 98, 24, 5)), 8000)
    state = train_step.initial_state(plan, wanted)
    expected = flops.count(lambda *arrays: build.steps.train_step(plan, *arrays), state, train_step.batch(plan)).flops
    written = table(report(tmp_path / "out", tmp_path / "runs")["report.md"], "Heads")
    assert [cells[4] for name, cells in written.items() if name.startswith("transformer")][1] == f"{expected / 1e6:.3g} M"
    assert [cells[3] for cells in written.values()][2:] == ["4,882", "4,882"]


def test_bands_of_seeds_that_stopped_early():
    low, high, mean, sd = charts.over_seeds([[1.0, 2.0, 6.0], [3.0, 4.0]])
    assert (low.tolist(), high.tolist(), mean.tolist()) == ([1, 2, 6], [3, 4, 6], [2, 3, 6])
    assert sd == pytest.approx([2**0.5, 2**0.5, 0])


def test_a_chart_is_what_it_says():
    """Well-formed, with a title and a description; the line starts and ends at the corners of its ranges."""
    axes = svg.Axes("a", "<loss>", "of & all", "epoch", (1.0, 3.0), (0.0, 10.0))
    drawn = svg.chart(axes, [svg.Line([(1, 0), (2, 1e300), (3, 10)], 1, "<b>", number=True), svg.Dots([(1, 2, 1, 3)], 2, "x")])
    root = ElementTree.fromstring(drawn.replace("<svg ", '<svg xmlns="" ', 1))
    assert root.find("title").text == "<loss>"
    assert root.find("desc").text == "of & all"
    path = next(each for each in root.iter("path") if each.get("class") == "mean c1").get("d")
    (x0, y0), _, (x1, y1) = (map(float, point.split()) for point in path[1:].split("L"))
    assert (x0, y0) == (52, svg.HEIGHT - 40)
    assert (x1, y1) == (svg.WIDTH - 26, 30)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.93, 0.97, ["0.93", "0.94", "0.95", "0.96", "0.97"]),
        (0, 5e7, ["0", "10M", "20M", "30M", "40M", "50M"]),
        (12_000, 26_000, ["15k", "20k", "25k"]),
        (-1e-5, 1e-5, ["-1e-05", "-5e-06", "0", "5e-06", "1e-05"]),
    ],
)
def test_round_numbers_of_an_axis(low: float, high: float, texts: list[str]):
    assert [text for _, text in svg.ticks(low, high, 5)] == texts


def test_many_groups_are_grey(tmp_path: Path):
    """Of more groups than colours, the baseline and the best are coloured."""
    for index in range(12):
        finished(tmp_path / "runs" / f"{index:02}", 0.5 + 0.01 * index, 0, learning_rate=0.1 + index)
    text = report(tmp_path / "out", tmp_path / "runs")["report.html"]
    assert "the means of 4 other groups" in text
    assert text.count('class="other c0"') == 4 * len(CURVES)


def test_the_benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "_flops", lambda *_: 1)
    ((count, epochs, fastest, *_),) = bench_report.measure(4, 2, 1)
    assert (count, epochs) == ("4", "2")
    assert float(fastest) < 10
    assert [row[0] for row in bench_report.coverage(20)] == ["2", "3", "5", "10"]


MEASURE = """document.querySelectorAll("details").forEach(each => each.open = true);
[innerWidth, document.documentElement.scrollWidth,
  Math.min(...[...document.querySelectorAll("svg text")].map(each => each.getBoundingClientRect().height))]"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.started(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser(width: int, tab: browser.Browser, tmp_path: Path):
    """Nothing is said in the console; no width overflows, and the text of the charts can be read, with all folds open."""
    four_seeds(tmp_path / "runs" / "a")
    four_seeds(tmp_path / "runs" / "b", 0.01, learning_rate=0.5, init_from="runs/" + "a_long_name_" * 12)
    write(tmp_path / "runs" / "c", config(seed=9), [], None, provenance={"exit_code": 1, "reason": "x" * 300 + HOSTILE})
    blog = tmp_path / "curves.csv"
    blog.write_text("model,epoch,val_loss\ntransformer,1,0.5\ntransformer,2,0.4\n")
    report(tmp_path / "out", tmp_path / "runs", f"--published={blog}")
    tab.open(tmp_path / "out" / "report.html", width)
    inner, scrolled, text = tab.evaluate(MEASURE)
    assert tab.console == []
    assert (inner, scrolled) == (width, width)
    assert text >= 11


@pytest.mark.browser
def test_the_console_is_heard(tab: browser.Browser, tmp_path: Path):
    """The page runs no script and loads nothing, even if a string were not escaped: the browser says so."""
    report(tmp_path / "out", finished(tmp_path / "run", 0.8, 0))
    bad = '<script>document.title = "run"</script><img src="http://127.0.0.1:9/x">'
    page = tmp_path / "bad.html"
    page.write_text((tmp_path / "out" / "report.html").read_text().replace("</body>", bad + "</body>"))
    tab.open(page)
    assert tab.evaluate("document.title") != "run"
    assert len(tab.console) == 2
    assert all("Content Security Policy" in line for line in tab.console)
