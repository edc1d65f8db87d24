"""The pages of the head ablation, `docs/head-ablation`: they are what the committed runs give."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import settings
from experiments.attend import weights
from experiments.report import heads, report
from experiments.reproduction import blog
from experiments.training import build
from scripts import head_entropies, head_split, ledger_table

FOLDER = blog.FOLDER.parent / "head-ablation"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report, without the operations of a step: to count those of 14 models takes longer than the rest of these tests."""
    out = tmp_path_factory.mktemp("report")
    shared = [entry for page in ("multi_head", "transformer") for entry in (blog.FOLDER / "runs").glob(f"{page}-seed_[0-4]-*")]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(FOLDER.parent.parent)  # its tables have the paths of the runs
        monkeypatch.setattr(heads, "_flops", lambda *_: None)
        arguments = ["docs/head-ablation/runs", *(str(entry.relative_to(Path.cwd())) for entry in sorted(shared))]
        report.report(arguments, out, "multi_head key_dim=2 num_heads=2", None)
    return out


def test_the_report_is_that_of_the_committed_runs(made: Path):
    for name in ("runs.csv", "curves.csv"):
        assert (made / name).read_bytes() == (FOLDER / name).read_bytes(), name
    sections = [(folder / "report.md").read_text().partition("\n## Heads\n") for folder in (made, FOLDER)]
    assert sections[0][0] == sections[1][0]
    title = "\n## Throughput\n"
    assert sections[0][2].partition(title)[2] == sections[1][2].partition(title)[2] != ""
    shown = (FOLDER / "report.html").read_text()
    for row in (FOLDER / "runs.csv").read_text().splitlines()[1:]:
        assert row.partition(",")[0] in shown


def test_the_split_is_that_of_the_committed_runs():
    assert f"\n{head_split.report()}\n" in (FOLDER / "README.md").read_text()


def test_the_table_of_the_embedded_corpus_is_that_of_the_committed_runs():
    table = ledger_table.table([str(FOLDER / "verdicts")], "verdicts", ["model.num_heads"])
    assert f"\n{table}\n" in (FOLDER / "README.md").read_text()


def test_the_entropies_are_those_of_the_weights():
    config = settings.load_page("transformer_positional", "verdicts")
    config.model.num_heads = 3
    model = build.model_of(config, 31, 7)
    tokens = np.array([[4, 9, 30, 2, 0, 0, 0], [5, 6, 7, 8, 1, 17, 0]])
    with tiny.fast_compilation():
        params = model.init(jax.random.key(0), jnp.asarray(tokens))["params"]
        params = jax.tree.map(lambda leaf: 15 * leaf, params)  # sharper than at the start
        [found] = head_entropies.head_entropies(model, params, jnp.asarray(tokens))
        expected: list[list[float]] = [[], [], []]
        for text in tokens:
            [rows] = weights.read(model, params, text).layers
            for head, queries in enumerate(rows.read(0, len(text))):
                for row in queries[text != 0]:
                    expected[head].append(-sum(float(w) * np.log(float(w)) for w in row if w > 0))
    np.testing.assert_allclose(found, [np.mean(each) for each in expected], rtol=1e-5)
    assert np.ptp(found) > 0.01 and max(found) < head_entropies.alike(tokens, masked=True)
    assert head_entropies.alike(tokens, masked=True) == pytest.approx((4 * np.log(4) + 6 * np.log(6)) / 10)
