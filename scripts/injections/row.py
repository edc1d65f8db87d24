"""A row of the table of faults."""

from typing import NamedTuple


class Row(NamedTuple):
    """What was injected and what came of it.

    Attributes:
      fault: What was injected.
      required: What must happen.
      injected: How many faults were injected.
      held: In how many of these cases it happened.
      note: What else was seen.
    """

    fault: str
    required: str
    injected: int
    held: int
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.injected == self.held > 0
