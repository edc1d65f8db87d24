"""The measures of the scripts on sequence to sequence, on small cases by hand."""

import json

import numpy as np

from scripts import seq2seq_alignment, seq2seq_lengths


def test_which_field_of_a_date_looks_where():
    """'3 May 98' says 1998-05-03: the day is character 0, the month 2 to 4, the year 6 and 7."""
    spans = {"day": (0, 1), "month": (2, 5), "year": (6, 8)}
    weights = np.zeros((10, 8))
    weights[0:4, 6:8] = 0.3  # the year, and 0.4 elsewhere
    weights[5:7, 2:5] = [[0.3, 0.3, 0.3], [0, 0.1, 0]]
    weights[6, 7] = 0.5  # the second character of the month looks at the year: 0.5 against 0.9 of both together
    weights[8:10, 0] = 0.2
    np.testing.assert_allclose(seq2seq_alignment.shares(weights, spans), [[0.2, 0, 0], [0, 0.5, 0.25], [0, 0, 0.6]], atol=1e-12)
    assert seq2seq_alignment.aligned(weights, spans)
    weights[5, 2:5] = 0.05
    assert not seq2seq_alignment.aligned(weights, spans)


def test_the_lengths_of_runs_become_a_figure_and_its_numbers(tmp_path, capsys):
    for name, counts in (("a", {"1": [4, 4], "2": [4, 3]}), ("b", {"1": [4, 2], "2": [4, 0]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps({"test": {"by_target_length": counts}}))
    seq2seq_lengths.main([str(tmp_path / "out"), f"with={tmp_path / 'a'}", f"without={tmp_path / 'b'}"])
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "run,length,sequences,exact",
        "with,1,4,4",
        "with,2,4,3",
        "without,1,4,2",
        "without,2,4,0",
    ]
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == "with: 1: 1.00, 2: 0.75\nwithout: 1: 0.50, 2: 0.00\n"
