"""Models that are built from the layers."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attn.models import classifier

__all__ = ["classifier"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'attn.models' has no attribute {name!r}")
    return importlib.import_module(f"attn.models.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
