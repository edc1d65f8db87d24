"""`attn.viewer.align`: the alignment of two sequences as a text, as a picture, and as a page in a browser."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import browser
import matplotlib.image
import numpy as np
import pytest

from attn import viewer
from attn.viewer.heat_map import columns

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>document.title = 'run'</script>"
SOURCE, TARGET = ["Tom", HOSTILE, "in", "\u202eno", "公园"], ["汤姆", "<b>b</b>", "&amp;"]
WEIGHTS = np.array([[[0.97, 0.03, 0, 0, 0], [0.2, 0.25, 0.3, 0.1, 0.15], [0, 0.01, 0.02, 0.07, 0.9]], np.full((3, 5), 0.2)])


def test_an_alignment_from_any_arrays():
    weights = np.array([[[1.0, 0, 0], [0, 0.5, 0.5]], [[0, 1.0, 0], [0, 0.5, 0.5]]])
    found = viewer.align(["Tom", "<script>", "Jerry"], ["汤姆", "杰瑞"], weights, title="a < b", notes=["c & d"])
    assert list(found.maps) == ["mean of the heads", "head 0", "head 1"]
    assert found.text().splitlines() == ["     Tom  <script> Jerry", "汤姆 0.50 0.50     0.00", "杰瑞 0.00 0.50     0.50"]
    shaded = viewer.align("abc", "xy", weights[0])
    assert shaded.text() == "  abc\nx █\ny  ▒▒"
    shades = [cell.get("fill-opacity") for cell in ElementTree.fromstring(shaded.svg()).iter(f"{SVG}rect")]
    assert shades == ["1.000", "0.500", "0.500"]


def test_labels_are_cut_and_characters_that_no_file_may_have_are_escaped():
    """The whole token is in the name of its cell."""
    found = viewer.align(["x" * 25, "汤" * 13, "y" * 24], ["a\0"], np.array([[0.5, 0.25, 0.25]]), title="\0")
    root = ElementTree.fromstring(found.svg())
    assert [each.text for each in root.iter(f"{SVG}text")] == ["x" * 22 + "…", "汤" * 11 + "…", "y" * 24, "a\\x00"]
    assert next(root.iter(f"{SVG}title")).text == f"a\\x00 ← {'x' * 25} 0.500"
    assert [columns(text) for text in ("x…", "汤姆", "e")] == [2, 4, 1]


@pytest.mark.parametrize(
    ("source", "weights", "message"),
    [
        ("", np.ones((2, 0)), "source has 0 tokens and target 2: each must have at least one"),
        ("abc", np.ones((3, 2)), r"weights \(3, 2\) of 'weights' must be \[U, S\] = \(2, 3\)"),
        ("abc", np.full((2, 3), np.nan), "weights of 'weights' must be numbers from 0 to 1"),
    ],
)
def test_an_alignment_of_wrong_arrays(source, weights, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        viewer.align(source, "xy", weights)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.started(tmp_path_factory.mktemp("profile")) as found:
        yield found


def places(tab: browser.Browser, selector: str) -> np.ndarray:
    """The edges of elements in the page: left, top, right, bottom."""
    box = "(r => [r.left, r.top, r.right, r.bottom])(e.getBoundingClientRect())"
    return np.array(tab.evaluate(f"[...document.querySelectorAll({selector!r})].map(e => {box})"))


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_in_a_browser(width: int, dark: bool, tab: browser.Browser, tmp_path: Path):
    """Hostile texts are text, nothing is requested, no label covers another, and each cell has the colour of its weight."""
    page = viewer.align(SOURCE, TARGET, dict(zip((HOSTILE, "b"), WEIGHTS, strict=True)), title=HOSTILE, notes=[HOSTILE])
    tab.open(page.save(tmp_path / "page.html"), width, dark=dark)
    assert (tab.console, tab.requests) == ([], [(tmp_path / "page.html").as_uri()])
    assert tab.evaluate("document.title") == tab.evaluate("document.querySelector('h1').textContent") == HOSTILE
    assert tab.evaluate("document.querySelector('h2').textContent") == HOSTILE
    labels = tab.evaluate("[...document.querySelectorAll('section:first-of-type text')].map(e => e.textContent)")
    assert labels == ["Tom", HOSTILE[:22] + "…", "in", "\\u202eno", "公园", *TARGET]
    assert tab.evaluate("document.documentElement.scrollWidth") == width

    tab.screenshot(tmp_path / "page.png")
    pixels = matplotlib.image.imread(tmp_path / "page.png")[..., :3]
    colours = "getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('rect')).fill"
    paper, heat = ([int(x) / 255 for x in colour[4:-1].split(",")] for colour in tab.evaluate(f"[{colours}]"))
    for index, weights in enumerate(WEIGHTS):
        cells = places(tab, f"section:nth-of-type({index + 1}) rect")
        x, y = (np.unique((cells[:, i] + cells[:, i + 2]) / 2).astype(int) for i in (0, 1))
        expected = np.multiply.outer(1 - weights, paper) + np.multiply.outer(weights, heat)
        np.testing.assert_allclose(pixels[np.ix_(y, x)], expected, atol=1.5 / 255)  # the browser rounds the weight and the sum


@pytest.mark.browser
@pytest.mark.parametrize(
    "source", [["汤姆", "今天", "在", "公园"], ["with", "Tom", "a", "in"], ["teacher", "a" * 30, "mmmm", "b"]]
)
def test_no_label_covers_another(source: list[str], tab: browser.Browser, tmp_path: Path):
    page = viewer.align(source, ["一个很长的词" * 3, "b", "c"], np.full((3, 4), 0.25))
    tab.open(page.save(tmp_path / "page.html"), 400)
    labels, (picture,) = places(tab, "svg text"), places(tab, "svg")
    for index, (left, top, right, bottom) in enumerate(labels):
        assert picture[0] <= left and picture[1] <= top and right <= picture[2] and bottom <= picture[3]
        others = np.delete(labels, index, 0)
        apart = (others[:, 2] < left - 3) | (others[:, 0] > right + 3) | (others[:, 3] < top) | (others[:, 1] > bottom)
        assert np.all(apart)


@pytest.mark.browser
def test_maps_and_tables_are_reached_with_the_keyboard(tab: browser.Browser, tmp_path: Path):
    """A map that is wider than a telephone scrolls in its own box."""
    weights = np.random.default_rng(0).dirichlet(np.ones(40), (2, 2))
    tab.open(viewer.align("s" * 40, "xy", weights).save(tmp_path / "page.html"), 400)
    reached = []
    for _ in range(6):
        tab.press("Tab")
        reached.append(tab.evaluate("(e => e.getAttribute('aria-label') || e.textContent)(document.activeElement)"))
        if len(reached) == 1:
            tab.press("ArrowRight")
            moved = "e.scrollLeft || Date.now() > end ? done(e.scrollLeft) : requestAnimationFrame(look)"
            waiting = f"const e = document.activeElement, end = Date.now() + 3000, look = () => {moved}; look()"
            assert tab.evaluate(f"new Promise(done => {{ {waiting} }})") > 0
    tab.press(" ", " ")
    names = ("mean of the heads", "head 0", "head 1")
    assert reached == [each for name in names for each in (f"Heat map of {name}", "As a table")]
    assert tab.evaluate("[...document.querySelectorAll('details')].map(e => e.open)") == [False, False, True]
    rows = tab.evaluate("[...document.querySelectorAll('details[open] td:last-child')].map(e => e.textContent)")
    assert rows == [f"{row.max():.2f}" for row in weights[1]]
    assert tab.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.browser
def test_an_injected_script_does_not_run(tab: browser.Browser, tmp_path: Path):
    """Even if a token were not escaped: the policy allows no script and no request."""
    bad = f"{HOSTILE}<img src='http://127.0.0.1:9/x'></main>"
    (tmp_path / "bad.html").write_text(viewer.align("a", "b", [[1.0]]).html().replace("</main>", bad), encoding="utf-8")
    tab.open(tmp_path / "bad.html")
    assert tab.evaluate("document.title") == "Alignment"
    assert sum("Content Security Policy" in line for line in tab.console) == 2
