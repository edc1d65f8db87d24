"""A page in which a person sees what every layer and head attends to: one HTML file, which needs no other file and no network.

NumPy in, HTML out: nothing in this package imports JAX, and nothing else in `attn` imports it.
"""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn.viewer.alignment import Alignment, align
    from attn.viewer.content import Live
    from attn.viewer.making import show
    from attn.viewer.page import Page
    from attn.viewer.rows import Rows

__all__ = ["Alignment", "Live", "Page", "Rows", "align", "show"]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Alignment": "attn.viewer.alignment",
        "Live": "attn.viewer.content",
        "Page": "attn.viewer.page",
        "Rows": "attn.viewer.rows",
        "align": "attn.viewer.alignment",
        "show": "attn.viewer.making",
    },
)
