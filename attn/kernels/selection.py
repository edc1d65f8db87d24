"""Which implementation runs, and why."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Literal

from attn._validation import check_name
from attn.kernels import pooled
from attn.kernels.chunked import attention as chunked
from attn.kernels.fused import attention as fused
from attn.kernels.inputs import Inputs
from attn.kernels.options import Options
from attn.kernels.tiles.tiling import Block, choose_block
from attn.shapes import Key, Query, Value

Implementation = Literal["auto", "dense", "chunked", "chunked_autodiff", "fused"]
IMPLEMENTATIONS = ("fused", "chunked", "chunked_autodiff", "dense")  # in the order in which "auto" tries them


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which implementation runs, with tiles of which size, and why each of the others does not. `print` shows it in full."""

    implementation: str
    block: Block | None  # None: a single piece
    others: dict[str, str]

    def __str__(self) -> str:
        tile = "" if self.block is None else f", tiles of {self.block.query} queries by {self.block.key} keys"
        return "\n".join([f"{self.implementation}{tile}", *(f"  not {name}: {why}" for name, why in self.others.items())])


_POOLED = Explanation("pooled", None, dict.fromkeys(IMPLEMENTATIONS, "'pooled' needs about half of the products"))
_recording: contextvars.ContextVar[list[Explanation] | None] = contextvars.ContextVar("recording", default=None)


@contextlib.contextmanager
def record_selections() -> Iterator[list[Explanation]]:
    """Yields a list to which each `attend` and `attend_pooled` traced inside of the block adds its explanation."""
    token = _recording.set(found := [])
    try:
        yield found
    finally:
        _recording.reset(token)


def record(explanation: Explanation) -> Explanation:
    """Adds to the list of a surrounding `record_selections`, if there is one, and returns the explanation."""
    if (found := _recording.get()) is not None:
        found.append(explanation)
    return explanation


def select(
    query: Query, key: Key, value: Value, options: Options, inputs: Inputs, implementation: str, block: int | tuple | None
) -> Explanation:
    """What `attn.attend` runs.

    Raises:
      ValueError: the implementation or the block that the caller asked for cannot be honoured.
    """
    check_name("implementation", implementation, ("auto", *IMPLEMENTATIONS))
    unsupported = {
        "fused": fused.unsupported(query, key, value, options),
        "chunked": chunked.unsupported(inputs),
        "chunked_autodiff": chunked.unsupported(inputs),
        "dense": None,
    }
    if implementation == "auto":
        slower = {
            "chunked_autodiff": "'chunked' computes the same, with a faster backward pass",
            "dense": "it keeps all T × S weights, and is slower",
        }
        implementation = next(name for name in IMPLEMENTATIONS if unsupported[name] is None and name != "chunked_autodiff")
        others = {name: unsupported[name] or slower.get(name) or f"{implementation!r} comes first" for name in IMPLEMENTATIONS}
    else:
        if (why := unsupported[implementation]) is not None:
            raise ValueError(f"implementation={implementation!r} {why}")
        others = {name: why or f"{implementation!r} was asked for" for name, why in unsupported.items()}
    others = {name: why for name, why in others.items() if name != implementation}
    tiled = implementation in ("chunked", "chunked_autodiff")
    if block is not None and not tiled:
        raise ValueError(
            f"block={block!r} with implementation={implementation!r}: only 'chunked' and 'chunked_autodiff' have tiles"
        )
    return Explanation(implementation, choose_block(inputs, block) if tiled else None, others)


def select_pooled(
    query: Query, key: Key, value: Value, options: Options, inputs: Inputs, implementation: str, block: int | tuple | None
) -> Explanation:
    """What `attn.attend_pooled` runs: "pooled", or the implementation whose outputs are averaged."""
    explanation = select(query, key, value, options, inputs, implementation, block)
    if implementation != "auto":
        why = f"{implementation!r} was asked for"
    elif explanation.implementation == "fused":
        why = "'fused' comes first"
    else:
        why = "block is given" if block is not None else pooled.unsupported(inputs)
    return _POOLED if why is None else dataclasses.replace(explanation, others={"pooled": why} | explanation.others)
