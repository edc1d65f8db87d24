"""The site of `make docs`: it builds without a warning, holds every page and public name, and needs no network."""

import inspect
import re
import runpy
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag

import browser
import pages
import pytest
from conftest import once
from pages import ROOT

import attn
from attn import layers, mask_mods, models, normalizers, parity, positions, score_mods, scores, viewer

pytest.importorskip("sphinx", reason="needs the extra docs: make test EXTRAS=docs")
MODULES = [attn, scores, score_mods, mask_mods, normalizers, positions, viewer, parity]
MODULES += [layers.keras, layers.d2l, layers.d2l_transformer, models.classifier]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once a session as `make docs` builds it: a warning is an error."""

    def build(folder: Path) -> None:
        command = re.search(r"-m (sphinx .*) build/docs\n", (ROOT / "Makefile").read_text())
        assert command
        arguments = [sys.executable, "-m", *command[1].split(), str(folder)]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return once(tmp_path_factory, "site", build)


class Page(HTMLParser):
    """What a page links to and loads, and the places in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        for name in {"href", "src", "srcset", "poster", "data"} & found.keys():
            (self.links if tag == "a" else self.loads).add(found[name])


def from_elsewhere(text: str) -> list[str]:
    """What a page or a style would load from another host."""
    styles = re.findall(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)", text)
    found = {*Page(text).loads, *(each for pair in styles for each in pair)}
    return sorted(load for load in found if re.match(r"\s*(https?:)?//", load))


def dead(site: Path, name: str, parsed: dict[str, Page]) -> list[str]:
    """The links and loads of a page that lead to no file of the site, or to no place in it."""
    page, wrong = parsed[name], []
    for link in page.links | page.loads:
        if re.match(r"[a-z]+:", link) or link.startswith("#svg-"):
            continue
        path, place = map(unquote, urldefrag(re.sub(r"\?[^#]*", "", link)))  # Sphinx adds ?v= and a checksum
        target = (site / name).parent.joinpath(path).resolve() if path else (site / name).resolve()
        inside = str(target.relative_to(site.resolve()))
        if not target.is_file() or (place and inside in parsed and place not in parsed[inside].places):
            wrong.append(link)
    return wrong


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[str, Page]:
    return {str(path.relative_to(site)): Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_in_the_navigation():
    conf = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    listed = [name for part in conf["navigation"]((ROOT / "docs" / "README.md").read_text()).values() for name in part]
    assert len(listed) == len(set(listed))
    written = {name.removesuffix(".md") for name in pages.tracked_files() if re.fullmatch(r"docs/.*\.md|[^/]*\.md", name)}
    left_out = {name.removesuffix(".md") for name in conf["exclude_patterns"]}
    assert written - left_out - {"README", "docs/README"} == set(listed)


def test_every_page_and_public_name_is_on_the_site(site, parsed):
    names = {name for name in pages.tracked_files() if re.fullmatch(r"docs/.*\.md|[^/]*\.md", name)}
    assert {name.replace(".md", ".html") for name in names - {"docs/reproduction/table.md"}} <= parsed.keys()
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    described = {line.split()[0].decode() for line in zlib.decompress(inventory).splitlines()}
    public = {f"{module.__name__}.{name}" for module in MODULES for name in public_names(module)}
    assert len(public) > 50
    assert public - described == set()


def public_names(module: ModuleType) -> Iterator[str]:
    """The functions and classes that a module has for its users."""
    for name in getattr(module, "__all__", vars(module)):
        value = getattr(module, name)
        own = hasattr(module, "__all__") or getattr(value, "__module__", None) == module.__name__
        documented = (inspect.isclass(value) or inspect.isfunction(value)) and value.__doc__
        if own and documented and value.__name__ == name and not name.startswith("_"):
            yield name


def test_every_link_leads_somewhere(site, parsed):
    wrong = {name: dead(site, name, parsed) for name in parsed}
    assert {name: links for name, links in wrong.items() if links} == {}


def test_nothing_is_loaded_from_elsewhere(site):
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 40
    wrong = {path.name: from_elsewhere(path.read_text(encoding="utf-8")) for path in files}
    assert {name: loads for name, loads in wrong.items() if loads} == {}


@pytest.mark.parametrize(
    "text, loads",
    [
        ('<script src="https://a.org/x.js"></script>', ["https://a.org/x.js"]),
        ('<link rel="stylesheet" href="//a.org/x.css">', ["//a.org/x.css"]),
        (
            "@import 'http://a.org/x.css'; p { background: url(https://a.org/x.png) }",
            ["http://a.org/x.css", "https://a.org/x.png"],
        ),
        ('<a href="https://a.org">a site</a> <img src="x.png">', []),
    ],
)
def test_a_load_from_elsewhere_is_found(text, loads):
    assert from_elsewhere(text) == loads


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html">x</a> <a href="#c">x</a> <img src="d.png"> <a href="#here" id="here">x</a>'
    )
    parsed = {"a.html": Page((tmp_path / "a.html").read_text())}
    assert sorted(dead(tmp_path, "a.html", parsed)) == ["#c", "b.html", "d.png"]


@pytest.mark.browser
def test_the_site_is_read_from_files(site, tmp_path):
    """In a browser: the first page leads to the README, a search finds, nothing is requested, and nothing scrolls sideways."""
    with browser.started(tmp_path / "profile") as tab:
        tab.open(site / "docs" / "tutorial" / "02-scores-and-softmax.html", width=400, dark=True)
        assert tab.evaluate("document.documentElement.scrollWidth") == 400
        assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)")
        assert tab.console == []
        tab.open(site / "search.html", width=1400)
        search = "document.querySelector('input[name=q]')"
        tab.follow(f"{search}.value = 'sparsemax', {search}.form.submit()")
        found = wait_for(tab, "[...document.querySelectorAll('#search-results li a')].map(link => link.href)")
        assert any(link.partition("?")[0].endswith("docs/contract.html") for link in found)
        assert {request.partition(":")[0] for request in tab.requests} <= {"file", "data"}


def wait_for(tab: browser.Browser, expression: str) -> list[str]:
    """The value of an expression once it is not empty, for at most 10 seconds."""
    for _ in range(100):
        if found := tab.evaluate(expression):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{expression} stays empty")
