"""The configuration of Sphinx, which builds the site of `make docs` from the Markdown of the repository.

The pages are plain Markdown that GitHub shows as well. The navigation is read from the tables of docs/README.md: each heading
is a part, and each link in a first column is a page. A page that is in no table is a warning of Sphinx, which fails the build.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

project = "attn"
project_copyright = "the attn authors, Apache 2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md"]
exclude_patterns = [
    ".*",
    *("attn", "build", "configs", "dist", "experiments", "runs", "scripts", "tests"),
    "docs/reproduction/table.md",  # a part of docs/reproduction/README.md, without a heading
]
nitpicky = False  # type annotations name classes of JAX and Flax, whose documentation is elsewhere

html_theme = "furo"
html_title = "attn"
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_show_search_summary = False  # a search would fetch the pages that it found, which a browser refuses to a file
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

myst_heading_anchors = 4
myst_enable_extensions = []

default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # linen's `setup` has nothing to say of a layer
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
napoleon_custom_sections = [("Attributes", "params_style")]  # of dataclasses and layers, whose fields are parameters
napoleon_use_rtype = False


def navigation(page: str) -> dict[str, list[str]]:
    """The pages of each part, without the suffix: the first links of the rows of the tables in docs/README.md."""
    parts = {}
    for section in re.split(r"(?m)^## ", page)[1:]:
        title, _, body = section.partition("\n")
        links = re.findall(r"(?m)^\| \[[^\]]*\]\(([^)]*)\.md\)", body)
        parts[title] = [str((Path("/docs") / link).resolve()).lstrip("/") for link in links]
    return parts


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts the navigation at the end of the first page, as hidden tables of contents."""
    if docname != root_doc:
        return
    parts = {"": ["docs/README"], **navigation((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))}
    for title, pages in parts.items():
        caption = [f":caption: {title}"] if title else []
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", *caption, "", *pages, "```", ""])


def as_rst(line: str) -> str:
    """A line of a docstring, which is Markdown, for reStructuredText: `code` is literal, and no other character is markup."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    pieces = re.split(r"(`[^`]*`)", line)
    return "".join(f"`{piece}`" if index % 2 else re.sub(r"([\\*|_])", r"\\\1", piece) for index, piece in enumerate(pieces))


def convert_docstring(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    lines[:] = map(as_rst, lines)


def shorten_signature(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Without the module of JAX' arrays, and without the two fields that linen adds to each module."""

    def short(text: str | None) -> str | None:
        return text and re.sub(r", parent: [^=]*= <[^>]*>, name: str \| None = None", "", text).replace(
            "jaxlib._jax.Array", "Array"
        )

    return short(signature), short(returns)


class LinksToFolders(SphinxTransform):
    """A link to a folder of the repository becomes its text: the site holds no folder to show."""

    default_priority = 1  # before MyST looks for a page or a file of that name

    def apply(self, **kwargs: object) -> None:
        folder = (ROOT / self.env.docname).parent
        for link in list(self.document.findall(nodes.Element)):
            target = link.get("reftarget", link.get("refuri", ""))
            if target and (folder / target).is_dir():
                link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", convert_docstring, priority=100)  # before napoleon, at 500
    app.connect("autodoc-process-signature", shorten_signature)
    app.add_transform(LinksToFolders)
