"""Errors that the user is told in one line, each with its exit code, and warnings."""

import sys


class Refusal(Exception):
    """Something that the user can correct. It is printed as one line, without a traceback."""

    exit_code = 1


class UsageError(Refusal):
    """A config or a command line breaks a rule. The message names the field, the value and the rule."""

    exit_code = 2


class DataError(Refusal):
    """Data or a checkpoint is missing or damaged."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or the name of its type: many libraries write whole pages."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    """Returns a text with escapes for the characters that cannot be shown, or that change the direction of others."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def warn(text: str) -> None:
    """Prints a warning of one line to stderr at once."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
