"""A page in which a person sees what every layer and head attends to: one HTML file, which needs no other file and no network.

NumPy in, HTML out: nothing in this package imports JAX, and nothing else in `attn` imports it.
"""

from typing import TYPE_CHECKING

from attn._lazy import lazy_attributes

if TYPE_CHECKING:
    from attn.viewer.content import Live
    from attn.viewer.making import show
    from attn.viewer.page import Page
    from attn.viewer.rows import Rows

__all__ = ["Live", "Page", "Rows", "show"]

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {"Live": "attn.viewer.content", "Page": "attn.viewer.page", "Rows": "attn.viewer.rows", "show": "attn.viewer.making"},
)
