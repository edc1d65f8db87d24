"""A training whose loss or gradient is not finite."""

from experiments.errors import Refusal


class Diverged(Refusal):
    """A loss or a gradient is not finite."""

    exit_code = 3
