"""What a page holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from attn.viewer.facts import Facts
from attn.viewer.summary import Layer, Rollout


class Live(NamedTuple):
    """A model that the page runs itself.

    Attributes:
      text: the text that is typed in it at first.
      model: what `live.js` reads, which can be written as JSON.
      notes: sentences about this text, below those of the page; the script says them of each text that is typed.
    """

    text: str
    model: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Content:
    """What a page holds.

    Attributes:
      facts: what is said beside the weights.
      layers: the layers.
      rollout: the rollout over them.
      live: the model in the page, or None.
    """

    facts: Facts
    layers: list[Layer]
    rollout: Rollout
    live: Live | None = None
