"""What a user is told in one line, and the exit code that goes with it."""


class Refusal(Exception):
    """Something that the user can mend: printed as one line, without a traceback."""

    exit_code = 1


class UsageError(Refusal):
    """A config or a command line that breaks a rule: names the field, the value and the rule."""

    exit_code = 2


class DataError(Refusal):
    """Data or a checkpoint that is missing or damaged."""

    exit_code = 4
