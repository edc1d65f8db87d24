"""Which implementation runs, why, and who wants to know."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Literal

from attn import blocks, chunked, fused, pooled
from attn.arguments import Arguments
from attn.blocks import Block
from attn.prepare import Options
from attn.scores import nearest

Implementation = Literal["auto", "dense", "chunked", "chunked_autodiff", "fused"]
IMPLEMENTATIONS = ("fused", "chunked", "chunked_autodiff", "dense")


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which implementation runs, in tiles of which size, and why each of the others would not."""

    implementation: str
    block: Block | None  # None: in one piece
    others: dict[str, str]

    def __str__(self) -> str:
        tile = "" if self.block is None else f", tiles of {self.block.query} queries by {self.block.key} keys"
        return "\n".join([f"{self.implementation}{tile}", *(f"  not {name}: {why}" for name, why in self.others.items())])


_AT_ONCE = Explanation("pooled", None, dict.fromkeys(IMPLEMENTATIONS, "'pooled' has a third of the products"))
_recording: contextvars.ContextVar[list[Explanation] | None] = contextvars.ContextVar("recording", default=None)


@contextlib.contextmanager
def recorded() -> Iterator[list[Explanation]]:
    """A list to which every `attend` and `attend_pooled` inside adds what it runs, when it is traced."""
    token = _recording.set(found := [])
    try:
        yield found
    finally:
        _recording.reset(token)


def record(choice: Explanation) -> Explanation:
    if (found := _recording.get()) is not None:
        found.append(choice)
    return choice


def choose(query, key, value, options: Options, arguments: Arguments, implementation: str, block) -> Explanation:
    """What `attn.attend` runs. Raises ValueError where a given implementation or block cannot be honoured."""
    nearest("implementation", implementation, ("auto", *IMPLEMENTATIONS))
    refusals = {
        "fused": fused.refusal(query, key, value, options),
        "chunked": chunked.refusal(arguments),
        "chunked_autodiff": chunked.refusal(arguments),
        "dense": None,
    }
    if implementation == "auto":
        slower = {
            "chunked_autodiff": "'chunked' is the same and faster; it is for forward mode, jax.jvp and jax.jacfwd",
            "dense": "it would keep all T × S weights, which is slower too",
        }
        implementation = next(name for name in IMPLEMENTATIONS if refusals[name] is None and name != "chunked_autodiff")
        others = {name: refusals[name] or slower.get(name) or f"{implementation!r} is before it" for name in IMPLEMENTATIONS}
    else:
        if (why := refusals[implementation]) is not None:
            raise ValueError(f"implementation={implementation!r} {why}")
        others = {name: why or f"{implementation!r} was asked for" for name, why in refusals.items()}
    others = {name: why for name, why in others.items() if name != implementation}
    tiled = implementation in ("chunked", "chunked_autodiff")
    if block is not None and not tiled:
        raise ValueError(
            f"block={block!r} with implementation={implementation!r}: only 'chunked' and 'chunked_autodiff' have tiles"
        )
    return Explanation(implementation, blocks.choose_block(arguments, block) if tiled else None, others)


def choose_pooled(query, key, value, options: Options, arguments: Arguments, implementation: str, block) -> Explanation:
    """What `attn.attend_pooled` runs: "pooled", or that of which the outputs are averaged."""
    choice = choose(query, key, value, options, arguments, implementation, block)
    if implementation != "auto":
        why = f"{implementation!r} was asked for"
    elif choice.implementation == "fused":
        why = "'fused' is before it"
    else:
        why = "block is given" if block is not None else pooled.refusal(arguments)
    return _AT_ONCE if why is None else dataclasses.replace(choice, others={"pooled": why} | choice.others)
