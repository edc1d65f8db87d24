"""Errors that the user is told in one line, each with its exit code."""


class Refusal(Exception):
    """Something that the user can correct. It is printed as one line, without a traceback."""

    exit_code = 1


class UsageError(Refusal):
    """A config or a command line breaks a rule. The message names the field, the value and the rule."""

    exit_code = 2


class DataError(Refusal):
    """Data or a checkpoint is missing or damaged."""

    exit_code = 4
