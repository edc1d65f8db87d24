"""Tables and curves."""

import re
from pathlib import Path

import pytest

from experiments.report import curves, tables


def rows(*losses: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "train_loss": loss, "train_accuracy": 1 - loss, "val_loss": 2 * loss, "val_accuracy": 0.5 - loss}
        for epoch, loss in enumerate(losses, start=1)
    ]


def test_table():
    written = tables.markdown(["model", "loss"], [["one", "0.25"], ["a longer one", "10.5"], ["", ""]])
    assert written == (
        "| model        | loss |\n"
        "|--------------|-----:|\n"
        "| one          | 0.25 |\n"
        "| a longer one | 10.5 |\n"
        "|              |      |"
    )


def test_table_without_rows():
    assert tables.markdown(["model", "loss"], []) == "| model | loss |\n|-------|-----:|"


def test_table_refuses_a_ragged_row():
    with pytest.raises(ValueError, match="shorter"):
        tables.markdown(["model", "loss"], [["one", "2", "3"]])


@pytest.mark.parametrize("runs", [{"one": [rows(0.3)]}, {"one": [rows(0.3, 0.2), rows(0.4, 0.1)], "two": [rows(0.2, 0.1)]}])
def test_curves_are_the_same_bytes_from_the_same_rows(runs: dict, tmp_path: Path):
    blog = {"one": rows(0.35, 0.25), "unknown": rows(1.0)}
    folders = [tmp_path / name for name in "abc"]
    for folder, values in zip(folders, (runs, runs, {"one": [rows(0.31)]}), strict=True):
        folder.mkdir()
        curves.draw_curves(folder, values, blog)
    for name in ("curves.png", "curves.svg"):
        first, again, other = ((folder / name).read_bytes() for folder in folders)
        assert first == again
        assert first != other, "the curve of another run looks different"
    assert sorted(path.name for path in folders[0].iterdir()) == ["curves.png", "curves.svg"]


def test_curves_show_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The mean of the seeds, their minimum to maximum, and the blog's own curve; read back from the axes."""
    figures = []
    monkeypatch.setattr(curves.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    curves.draw_curves(tmp_path, {"one": [rows(0.3, 0.2), rows(0.5, 0.1)], "two": [rows(0.7)]}, {"one": rows(0.35, 0.25)})
    axes = figures[0].axes
    assert [ax.get_title() for ax in axes] == ["training loss", "training accuracy", "validation loss", "validation accuracy"]
    assert [ax.get_ylabel() for ax in axes] == ["nats", "share of reviews"] * 2
    validation = axes[2]
    mean, dashed, single = validation.get_lines()
    assert mean.get_ydata() == pytest.approx([0.8, 0.3])
    assert dashed.get_ydata() == pytest.approx([0.7, 0.5])
    assert (single.get_ydata(), single.get_marker()) == (pytest.approx([1.4]), "o"), "a line of one point is invisible"
    band = validation.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((0.2, 1.0))
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["one", "two", "the blog"]


def test_lines_are_named_beside_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two that end at the same height get labels that do not overlap; the flat ones share one."""
    figures = []
    monkeypatch.setattr(curves.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    rising = {"one": rows(-0.3, -0.4), "two": rows(-0.2, -0.41), "three": rows(-0.1, -0.2)}
    curves.draw_lines(tmp_path, "title", rising, [rows(0.0, 0.0), rows(0.0, 0.0)], "both stay")
    (axes,) = figures[0].axes
    assert [line.get_ydata()[-1] for line in axes.get_lines()] == pytest.approx([0.5, 0.5, 0.9, 0.91, 0.7])
    labels = {text.get_text(): text.xy[1] for text in axes.texts}
    assert labels == {
        "both stay": 0.5,
        "one: 0.900": pytest.approx(0.87),
        "two: 0.910": pytest.approx(0.91),
        "three: 0.700": pytest.approx(0.7),
    }


def test_svg_names_no_date_and_no_machine(tmp_path: Path):
    curves.draw_curves(tmp_path, {"one": [rows(0.3, 0.2)]})
    assert not re.search(r"<dc:date>", (tmp_path / "curves.svg").read_text())
