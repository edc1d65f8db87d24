"""`attn.viewer`: its numbers against float64 loops, its sizes, its refusals, and its page in a browser."""

import base64
import json
import math
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import browser
import numpy as np
import pytest

import attn
from attn.viewer import encoding, rows, summary

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</script><script>document.title='run'</script>\u202e\x1b\"'&amp;"


def weights(seed: int, *shape: int) -> np.ndarray:
    """Random rows that sum to 1, some with zeros."""
    raw = np.random.default_rng(seed).exponential(size=shape) ** 3
    raw[..., 0, 1:] = 0
    return raw / raw.sum(-1, keepdims=True)


def data_of(page: attn.viewer.Page) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html(), re.DOTALL)
    assert found
    return json.loads(found[1])


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_the_numbers_of_a_page(residual: bool, padding: int):
    """Received attention, entropy and rollout by loops; padding is one token: its columns added up, its row the mean."""
    layers, length = [weights(1, 2, 7, 7), weights(2, 3, 7, 7)], 7
    real = length - padding
    plan = summary.Plan(length, padding, None, (), "uint8", residual)
    found, rollout = summary.summarize([rows.of_array("x", each) for each in layers], plan)
    for layer, array in zip(found, layers, strict=True):
        received, entropy = np.zeros((len(array), plan.shown)), np.zeros((len(array), plan.shown))
        for head in range(len(array)):
            for query in range(length):
                for key in range(length):
                    weight = array[head, query, key]
                    received[head, min(key, real)] += weight / length
                    share = padding if query >= real else 1
                    entropy[head, min(query, real)] -= weight * math.log(weight) / share if weight else 0
        np.testing.assert_allclose(layer.received, received, atol=1e-12)
        np.testing.assert_allclose(layer.entropy, entropy, atol=1e-12)
    product = np.eye(length)
    for array in layers:
        mean = sum(array) / len(array)
        product = (mean + np.eye(length)) / 2 @ product if residual else mean @ product
    merged = np.zeros((length, plan.shown))
    for key in range(length):
        merged[:, min(key, real)] += product[:, key]
    expected = [*merged[:real], *([merged[real:].mean(0)] if padding else [])]
    np.testing.assert_allclose(rollout.rows, expected, atol=1e-12)
    np.testing.assert_allclose(rollout.pooled, merged.mean(0), atol=1e-12)


def test_received_and_entropy_are_those_of_the_library():
    """`attn.attention_statistics` never holds the weights."""
    query, key = (np.random.default_rng(seed).normal(size=(9, 2, 4)).astype(np.float32) for seed in (3, 4))
    theirs = attn.attention_statistics(query, key)
    page = attn.viewer.show("abcdefghi", [attn.attention_weights(query, key)])
    layer = page.layers[0]
    np.testing.assert_allclose(9 * layer.received, np.asarray(theirs.received), rtol=1e-5)
    np.testing.assert_allclose(layer.entropy, np.asarray(theirs.entropy), rtol=1e-5)


@pytest.mark.parametrize(("precision", "error"), [("uint8", 1 / 510), ("float16", 2**-11)])
def test_how_far_stored_weights_are_off(precision: Any, error: float):
    array = weights(5, 2, 40, 40)
    found = encoding.encode(array, precision)
    decoded = found.codes / 255 * found.scale[..., None] if precision == "uint8" else found.codes.astype(np.float64)
    assert np.all(np.abs(decoded - array) <= error * found.scale[..., None] * (1 + 1e-5) + 1e-7)
    assert np.abs(decoded - array).max() > error / 50


def test_the_largest_weights_are_stored_and_the_rows_that_were_asked_for():
    """Of 600 tokens; ties aside, sorting gives the same."""
    array = weights(6, 2, 600, 600)
    page = attn.viewer.show(list(map(str, range(600))), [array], queries=(599, 7))
    layer, count = page.layers[0], page.facts.plan.top_keys
    assert count == 64
    for head, query in ((0, 5), (1, 599), (1, 64)):
        expected = np.sort(array[head, query])[::-1][:count]
        np.testing.assert_allclose(array[head, query, layer.keys[head, query]], expected)
        np.testing.assert_allclose(
            layer.codes.codes[head, query] / 255 * layer.codes.scale[head, query], expected, atol=1 / 255
        )
    assert page.facts.plan.queries == (7, 599)
    assert layer.full
    np.testing.assert_allclose(layer.full.codes[1, 1] / 255 * layer.full.scale[1, 1], array[1, 599], atol=1 / 255)
    mean = (array.mean(0) + np.eye(600)) / 2
    np.testing.assert_allclose(page.rollout.rows, mean[[7, 599]], atol=1e-12)


@pytest.mark.parametrize(("length", "most"), [(256, 500_000), (512, 2_000_000), (4096, 5_000_000)])
def test_sizes_and_memory(length: int, most: int):
    """Four heads. No T × S array is made of 4,096 tokens: one would be 134 MB for a head in float64."""
    block = weights(7, 4, 64, length)
    tracemalloc.start()
    page = attn.viewer.show(["wonderful"] * length, [attn.viewer.Rows(4, length, lambda start, stop: block[:, : stop - start])])
    content = page.html()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(content.encode()) <= most
    assert peak < 60e6


def test_a_page_without_jax():
    code = "import sys, attn, numpy; attn.viewer.show('ab', [numpy.eye(2)[None]]).html(); print('jax' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"
    )


EYE = np.eye(3)[None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", [EYE]), "tokens has no token"),
        (("abc", []), "weights has no layer"),
        (("ab", [EYE]), "layer 0: weights of 3 tokens, but tokens has 2"),
        (("abc", [EYE[0]]), r"layer 0: weights \(3, 3\) must be \(heads, T, T\)"),
        (("abc", [EYE[:, :2]]), r"layer 0: weights \(1, 2, 3\) must be"),
        (("abc", [EYE, EYE * np.nan]), "layer 1, head 0, query 0, key 0: weight nan is not from 0 to 1"),
        (("abc", [-EYE]), "layer 0, head 0, query 0, key 0: weight -1.0 is not"),
        (("abc", [EYE], {"layer": 1}), "layer=1 must be an integer from 0 to 0"),
        (("abc", [EYE], {"head": 1}), "head=1 must be an integer from 0 to 0"),
        (("abc", [EYE], {"queries": (3,)}), "queries=3 must be from 0 to 2"),
        (("abc", [EYE], {"padding": 3}), "padding=3 must be an integer from 0 to 2"),
        (("abc", [EYE], {"effect": [1, 2]}), r"effect \(2,\) must be 3 finite numbers"),
        (("abc", [EYE], {"precision": "int4"}), "precision='int4' is not one of uint8, float16"),
        (("abc", [EYE], {"prediction": {"pos": 2}}), r"prediction\['pos'\]=2.0 is not a probability"),
    ],
)
def test_what_is_refused(arguments: tuple, message: str):
    tokens, layers, *options = arguments
    with pytest.raises(ValueError, match=message):
        attn.viewer.show(tokens, layers, **(options[0] if options else {}))


def test_saving(tmp_path: Path):
    page = attn.viewer.show(["a", HOSTILE], [np.eye(2)[None]], title=HOSTILE)
    for name in ("page.html", "page.svg"):
        text = page.save(tmp_path / name).read_text()
        assert "<script>document" not in text
        assert "\x1b" not in text
    assert 'srcdoc="&lt;!doctype html&gt;' in page._repr_html_()
    assert page.html() == unescape(page._repr_html_().split('srcdoc="')[1].removesuffix('"></iframe>'))
    with pytest.raises(ValueError, match=r"must end with \.html or \.svg"):
        page.save(tmp_path / "page.png")


def test_a_picture_names_its_rows_and_columns():
    """Of at most 32 tokens; each name is in the middle of its row, and of its column."""
    tokens = ["a", "<b>", "w" * 20]
    whole = ElementTree.fromstring(attn.viewer.show(tokens, [np.eye(3)[None]]).svg())
    texts, heat = list(whole.iter(f"{SVG}text")), whole.find(f"{SVG}svg")
    assert heat is not None
    assert [text.text for text in texts] == ["a", "<b>", "w" * 20, *("a", "a", "<b>", "<b>", "w" * 14, "w" * 14)]
    left, top, side = (float(heat.attrib[name]) for name in ("x", "y", "width"))
    for index, (row, column) in enumerate(zip(texts[3::2], texts[4::2], strict=True)):
        middle = (index + 0.5) * side / 3
        assert float(row.attrib["y"]) == pytest.approx(top + middle, abs=5)
        assert float(row.attrib["x"]) < left
        x, y = re.findall(r"[\d.]+", column.attrib["transform"])[:2]
        assert float(x) == pytest.approx(left + middle, abs=5)
        assert float(y) < top
    many = attn.viewer.show(list(map(str, range(33))), [np.eye(33)[None]]).svg()
    assert many.count("<text") == 33


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours such as #14161a."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast():
    style = (ROOT / "attn" / "viewer" / "style.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(themes) == 2
    for theme in themes:
        for ink, paper in (("ink", "paper"), ("ink", "mark"), ("quiet", "paper"), ("link", "raised"), ("ink", "raised")):
            assert contrast(theme[ink], theme[paper]) >= 4.5, (ink, paper)
        assert all(contrast(theme[name], theme["paper"]) >= 4.5 for name in ("for", "against"))
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.started(tmp_path_factory.mktemp("profile")) as found:
        yield found


PRESSED = "[...document.querySelectorAll('#tokens button')].findIndex(b => b.ariaPressed === 'true')"
TABLE = """[...document.querySelectorAll('#detail tbody tr')].map(
  r => [+r.dataset.key, ...[...r.querySelectorAll('td:has(.bar)')].map(c => +c.textContent)])"""
ALPHA = "(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 3))(canvas)"


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_in_a_browser(width: int, dark: bool, tab: browser.Browser, tmp_path: Path):
    """Hostile tokens are text; nothing is requested; clicks, keys and heads show the weights of the array."""
    array = weights(8, 3, 6, 6)
    tokens = ["a", HOSTILE, "<b>bold</b>", "long" * 40, "e", "e"]
    page = attn.viewer.show(tokens, [array, array[::-1]], title=HOSTILE, effect=np.arange(6) - 2.5, notes=[HOSTILE])
    tab.open(page.save(tmp_path / "page.html"), width, dark=dark)
    assert tab.evaluate("document.title") != "run"
    assert tab.evaluate("document.querySelectorAll('#tokens button').length") == 6
    assert "</script><script>" in tab.evaluate("document.querySelectorAll('#tokens button')[1].textContent")
    assert tab.evaluate("performance.now()") < 1000
    tab.click("#tokens button:nth-of-type(3)")
    assert tab.evaluate(PRESSED) == 2
    for row in tab.evaluate(TABLE):
        np.testing.assert_allclose(row[1:], array[:, 2, row[0]], atol=1 / 255)
    tab.press("ArrowRight")
    assert tab.evaluate(PRESSED) == 3
    tab.evaluate("document.querySelector('input[name=layer][value=\"1\"]').click()")
    tab.evaluate("document.querySelector('input[name=head][value=\"0\"]').click()")
    assert tab.evaluate("document.activeElement.value") in ("3", "0", "")
    alphas = np.reshape(tab.evaluate(ALPHA), (6, 6)) / 255
    np.testing.assert_allclose(alphas, array[2] / array[2].max(), atol=1 / 255)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    tab.press("Escape")
    assert tab.evaluate(PRESSED) == -1
    assert (tab.console, tab.requests) == ([], [(tmp_path / "page.html").as_uri()])


@pytest.mark.browser
def test_every_control_is_reached_with_the_tab_key(tab: browser.Browser, tmp_path: Path):
    tab.open(attn.viewer.show("abc", [weights(9, 2, 3, 3)]).save(tmp_path / "page.html"))
    reached = []
    for _ in range(6):
        tab.press("Tab")
        reached.append(tab.evaluate("(e => e.name || e.id || e.textContent)(document.activeElement)"))
    assert reached[:5] == ["layer", "head", "a", "export", "entropy"]


@pytest.mark.browser
def test_an_injected_script_does_not_run(tab: browser.Browser, tmp_path: Path):
    """Even if a text were not escaped: the policy allows the page's own script alone, and no request."""
    page = attn.viewer.show("ab", [np.eye(2)[None]]).html()
    bad = "<script>document.title = 'run'</script><img src='http://127.0.0.1:9/x'><p style='color: red'>"
    (tmp_path / "bad.html").write_text(page.replace("</main>", bad + "</main>"))
    tab.open(tmp_path / "bad.html")
    assert tab.evaluate("document.title") == "What the model attends to"
    assert sum("Content Security Policy" in line for line in tab.console) == 3


@pytest.mark.browser
def test_without_javascript_there_is_a_picture(tab: browser.Browser, tmp_path: Path):
    tab.open(attn.viewer.show("abc", [weights(9, 2, 3, 3)]).save(tmp_path / "page.html"), script=False)
    try:
        root = tab.send("DOM.getDocument", depth=-1)["root"]["nodeId"]
        svg = tab.send("DOM.querySelector", nodeId=root, selector="#heat svg path")["nodeId"]
        form = tab.send("DOM.querySelector", nodeId=root, selector="#choice[hidden]")["nodeId"]
        assert svg and form
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.browser
def test_the_picture_that_is_exported(tab: browser.Browser, tmp_path: Path):
    tab.open(attn.viewer.show(["<a>", "&", "c"], [weights(9, 2, 3, 3)]).save(tmp_path / "page.html"))
    drawn = tab.evaluate(
        "(d => [d.querySelector('parsererror'), ...[...d.querySelectorAll('text')].map(t => t.textContent)])"
        "(new DOMParser().parseFromString(svgPicture(), 'image/svg+xml'))"
    )
    assert drawn == [None, "<a>", "&", "c", *("<a>", "<a>", "&", "&", "c", "c")], "the tokens, and each row and column"
    tab.click("#export")
    assert tab.console == []


@pytest.mark.browser
def test_a_long_text_in_a_browser(tab: browser.Browser, tmp_path: Path):
    """2,000 tokens: interactive within a second, and a row that was asked for is whole."""
    array = weights(10, 2, 64, 2000)
    layer = attn.viewer.Rows(2, 2000, lambda start, stop: array[:, : stop - start])
    page = attn.viewer.show(list(map(str, range(2000))), [layer], queries=(1999, 3))
    tab.open(page.save(tmp_path / "page.html"))
    assert tab.evaluate("document.documentElement.dataset.ready") == "true"
    assert tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 1000
    row = tab.evaluate("[...view.layers[0].heads[1].row(3)]")
    np.testing.assert_allclose(row, array[1, 3], atol=1 / 255)
    tops = np.asarray(tab.evaluate("[...view.layers[0].heads[1].row(70)]"))
    assert 0 < np.count_nonzero(tops) <= 64
    np.testing.assert_allclose(tops[tops > 0], array[1, 6][tops > 0], atol=1 / 255)


@pytest.mark.browser
def test_two_pages_and_an_alignment_in_one_notebook(tab: browser.Browser, tmp_path: Path):
    """As the outputs of cells: frames with a sandbox, in which each page runs its own script and no other."""
    arrays = weights(12, 2, 3, 3), weights(13, 1, 4, 4)
    shown = [attn.viewer.show("abcd"[: len(array[0])], [array], title=f"Page {at}") for at, array in enumerate(arrays)]
    cells = [*shown, attn.viewer.align("ab", "xyz", np.full((3, 2), 0.5))]
    path = tmp_path / "notebook.html"
    path.write_text('<link rel="icon" href="data:,">' + "".join(cell._repr_html_() for cell in cells))
    tab.open(path, height=2400)
    titles = {tab.evaluate("document.title", frame): frame for frame in tab.frames}
    assert titles.keys() == {"Page 0", "Page 1", "Alignment"}
    for at, array in enumerate(arrays):
        frame = titles[f"Page {at}"]
        assert tab.evaluate("document.documentElement.dataset.ready", frame) == "true"
        tab.evaluate("select(1)", frame)
        for key, *numbers in tab.evaluate(TABLE, frame):
            np.testing.assert_allclose(numbers, array[:, 1, key], atol=1 / 255)
    assert tab.console == []
    assert {url.partition(":")[0] for url in tab.requests} <= {"file", "about", "data"}
    assert [len(repr(cell)) < 100 for cell in cells] == [True] * 3, "what a terminal shows of a page is a line"


CHOOSE = """[...document.querySelectorAll("iframe")].map((frame, at) => {
  const [layer, token] = CHOSEN[at], page = frame.contentDocument;
  page.querySelectorAll("input[name=layer]")[layer].click();
  frame.contentWindow.select(token);
  const lines = [...page.querySelectorAll("#detail tbody tr")];
  const numbers = line => [...line.querySelectorAll("td:has(.bar)")].map(cell => +cell.textContent);
  const table = lines.map(line => [+line.dataset.key, ...numbers(line)]);
  return [table, page.documentElement.dataset.ready, page.documentElement.scrollWidth];
})"""


@pytest.mark.browser
def test_two_hundred_random_pages(tab: browser.Browser, tmp_path: Path):
    """In frames, as in a notebook. Any number of tokens, layers, heads and characters: no error, no request, and the drawn
    numbers are the array's."""
    rng, path = np.random.default_rng(11), tmp_path / "frames.html"
    for first in range(0, 200, 25):
        frames, chosen, expected = [], [], []
        for seed in range(first, first + 25):
            length = int(rng.integers(1, 30))
            padding = int(rng.integers(1, length - 1)) if length > 4 and seed % 3 == 0 else 0
            layers = [weights(seed + at, int(rng.integers(1, 5)), length, length) for at in range(int(rng.integers(1, 4)))]
            tokens = ["".join(map(chr, rng.choice([*range(1, 900), 0x202E, 0x1F600], 5))) for _ in range(length)]
            effect = rng.normal(size=length) if seed % 2 else None
            precision: Any = ("uint8", "float16")[seed % 2]
            page = attn.viewer.show(tokens, layers, padding=padding, effect=effect, precision=precision)
            frames.append(
                page._repr_html_().replace('width="100%"', 'width="400" style="border: 0"').replace("sandbox=", "data-was=")
            )
            chosen.append((int(rng.integers(len(layers))), int(rng.integers(length - padding))))
            rows_there = layers[chosen[-1][0]][:, chosen[-1][1]]
            real = length - padding
            expected.append(np.concatenate([rows_there[:, :real], rows_there[:, real:].sum(1, keepdims=True)], 1))
        path.write_text('<meta charset="utf-8"><link rel="icon" href="data:,">' + "".join(frames))
        tab.open(path)
        for (table, ready, width), array in zip(
            tab.evaluate(CHOOSE.replace("CHOSEN", json.dumps(chosen))), expected, strict=True
        ):
            assert (ready, width) == ("true", 400)
            assert table
            for key, *shown in table:
                np.testing.assert_allclose(shown, array[:, key], atol=1 / 255)
        assert tab.console == []
        assert {url.partition(":")[0] for url in tab.requests} <= {"file", "about", "data"}
        assert sum(url.startswith("file") for url in tab.requests) == 1
