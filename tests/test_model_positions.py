"""The page of positions: its sweep, its figure, the rotation that it shows, and its tables."""

import numpy as np

from attn.positions import sinusoidal
from configs import positions as page
from experiments import settings
from experiments.report import figure_files
from scripts import ledger_table, positions


def test_the_sweep_has_each_kind_once_and_all_else_is_the_transformers():
    kinds = [point["model.positions"] for point in page.sweep()]
    assert kinds == ["none", "learned", "sinusoidal", "rotary", "alibi", "t5"]
    for data in settings.CORPORA:
        assert page.get_config(data).to_dict() == settings.load_page("transformer", data).to_dict()


def test_a_step_in_position_is_a_rotation():
    table = np.asarray(sinusoidal(positions.LENGTH, positions.DIM), np.float64)
    for step in (1, 17):
        np.testing.assert_allclose(positions.turned(table[:-step], step), table[step:], atol=1e-6)
        assert np.abs(positions.turned(table[:-step], step + 1) - table[step:]).max() > 0.5
    one, other = (positions.rotary_scores(t) for t in (0, 20))
    np.testing.assert_allclose(one, other, atol=2e-3)
    assert np.ptp(one) > 1


def test_the_figure_is_that_of_the_script():
    assert figure_files.drawn(positions.figure()) == figure_files.drawn_in(positions.FOLDER / "sinusoidal.png")


def test_the_tables_are_those_of_the_committed_runs():
    text = (positions.FOLDER.parent / "positions.md").read_text()
    ledgers = [str(positions.FOLDER / "runs")]
    assert f"\n{ledger_table.table(ledgers, 'verdicts', ['model.positions'])}\n" in text
    long = [str(positions.FOLDER / "long")]
    assert f"\n{ledger_table.table(long, 'verdicts', ['model.positions'])}\n" in text
    reproduced = positions.FOLDER.parent / "reproduction" / "runs"
    ledgers += [str(entry) for entry in sorted(reproduced.glob("transformer*-seed_[0-4]-*"))]
    assert f"\n{ledger_table.table(ledgers, 'imdb', ['model.positions'])}\n" in text
