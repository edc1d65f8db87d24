"""A page: its data, its HTML with the policy that forbids the network, and how it is saved and shown."""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from attn.viewer import encoding, markup, picture, saving
from attn.viewer.content import Content
from attn.viewer.facts import visible
from attn.viewer.summary import Layer


class Page(Content):
    """A page of attention weights; `attn.viewer.show` makes it, and `Content` lists its fields."""

    def html(self) -> str:
        """The page, which needs no other file, makes no request, and runs no script but its own."""
        style, script = _file("style.css"), self._script()
        policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
        return markup.page(self, policy, style, script, _json(self._data()))

    def svg(self) -> str:
        """The still picture as an SVG file: the coarse map of the layer and head that are shown first, and the tokens."""
        return picture.file(self)

    def save(self, path: str | Path) -> Path:
        """Writes the page, or the picture if the name ends with .svg. Raises ValueError for another ending, and OSError."""
        return saving.save(self, path)

    def __repr__(self) -> str:
        return f"<attn.viewer.Page {visible(self.facts.title)!r} tokens={len(self.facts.tokens)} layers={len(self.layers)}>"

    def _repr_html_(self) -> str:
        frame = 'sandbox="allow-scripts allow-downloads" width="100%" height="760" frameborder="0" title="Attention"'
        return f'<iframe {frame} srcdoc="{escape(self.html())}"></iframe>'

    def _script(self) -> str:
        names = ("stored.js", "draw.js", "live.js", "page.js") if self.live else ("stored.js", "draw.js", "page.js")
        return '"use strict";\n' + "".join(map(_file, names))

    def _data(self) -> dict[str, Any]:
        facts = self.facts
        start = {"layer": facts.layer, "head": facts.head, "effectOf": facts.effect_of}
        if self.live:
            return start | {"live": self.live.model}
        return start | {
            "tokens": [visible(token) for token in facts.tokens],
            "length": facts.plan.length,
            "padded": facts.plan.padding > 0,
            "prediction": facts.prediction,
            "layers": [self._layer(layer) for layer in self.layers],
            "rollout": self._rollout(),
            "effect": None if facts.effect is None else encoding.floats(facts.effect),
        }

    def _layer(self, layer: Layer) -> dict[str, Any]:
        stored: dict[str, Any] = {"heads": len(layer.received), "precision": self.facts.plan.precision}
        stored |= {"codes": encoding.text(layer.codes.codes), "scale": encoding.floats(layer.codes.scale)}
        if layer.keys is not None:
            stored |= {"top": self.facts.plan.top_keys, "keys": encoding.text(layer.keys)}
        if layer.full is not None:
            full = {"codes": encoding.text(layer.full.codes), "scale": encoding.floats(layer.full.scale)}
            stored |= {"full": full | {"queries": self.facts.plan.queries}}
        return stored | {"received": encoding.floats(layer.received), "entropy": encoding.floats(layer.entropy)}

    def _rollout(self) -> dict[str, Any]:
        """The rollout. Of a single layer the page computes it, as the mean of the heads with the residual connection."""
        pooled = {"received": encoding.floats(self.rollout.pooled)}
        if len(self.layers) == 1:
            return pooled | {"residual": self.facts.plan.residual}
        codes = encoding.encode(self.rollout.rows, "uint8")
        queries = self.facts.plan.queries if self.facts.plan.top_keys else None
        return pooled | {"codes": encoding.text(codes.codes), "scale": encoding.floats(codes.scale), "queries": queries}


def _file(name: str) -> str:
    return resources.files("attn.viewer").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end a script element: no "<" is in it."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"), default=_plain).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else list(value)
