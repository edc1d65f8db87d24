"""Reads the flags of the commands, and says in one line what is wrong with them.

JAX takes a second to import, so it is imported (with the rules of the config) where a field of the config is read.
"""

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from experiments.errors import Refusal, UsageError

Config = Any  # see settings.Config
Defaults = Mapping[str, str | int | tuple[str, ...] | None]  # of the flags of a command, by name
_RULES = {"bool": "true or false", "int": "an integer"}  # by absl's name of the type of a flag


def parse(
    arguments: list[str], defaults: Defaults, words: bool = False, fields: bool = False
) -> tuple[flags.FlagValues, list[str]]:
    """Parses flags.

    Args:
      arguments: The command line after the name of the command.
      defaults: The flags and their defaults. A flag whose default is an integer takes integers only, and one whose default is
        False takes no value. One whose default is a tuple may be repeated.
      words: Whether words without dashes are allowed.
      fields: Whether other flags are allowed, which `read_config` will read.

    Returns:
      The values of the flags, and the words without dashes (and, if `fields`, the other flags).

    Raises:
      UsageError: A flag is unknown or has a bad value, or there is a word.
    """
    values = _defined(defaults)
    return values, _parsed(values, arguments, words or fields, fields)


def path(name: str, text: str) -> Path:
    """Returns a path that was typed as the value of `name`. Raises UsageError if it is empty, or its bytes are not UTF-8."""
    if not text:
        raise UsageError(f"{name} is empty: it must be a path")
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise UsageError(f"{name}={shown} must be UTF-8") from None
    return Path(text)


def optional_path(name: str, text: str | None) -> Path | None:
    """Returns the same as `path`, or None if the flag was not given."""
    return None if text is None else path(name, text)


def workdir(values: flags.FlagValues) -> Path:
    """Returns the value of --workdir. Raises UsageError if it is missing."""
    if not values.workdir:
        raise UsageError("--workdir is missing: it must be the folder of the run")
    return path("--workdir", values.workdir)


def choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Returns the value of a flag. Raises UsageError if it is not one of the choices."""
    if value not in choices:
        raise UsageError(f"--{name}={value} must be {' or '.join(choices)}")
    return value


def page(values: flags.FlagValues) -> str:
    """Returns the value of --config. Raises UsageError if it names no file."""
    text = values.config
    file = (text or "").partition(":")[0]
    if not file or not path("--config", file).is_file():
        problem = "--config is missing" if text is None else f"--config={text} is not a file"
        raise UsageError(f"{problem}: it must be a config file such as {_example_page()}")
    return text


def read_config(page: str, fields: list[str], defaults: Defaults) -> Config:
    """Returns the checked config of a run.

    Args:
      page: The value of --config.
      fields: The flags for its fields, such as "--config.epochs=3".
      defaults: The other flags of the command, which are suggested for unknown ones.

    Raises:
      UsageError: The page or a field breaks a rule.
    """
    from experiments import settings

    try:
        config = _read_page(page, fields, defaults)
        settings.check(config)
    except Refusal:
        raise
    except Exception as error:  # a page is Python code, which may raise anything
        raise UsageError(f"--config={page} cannot be read: {type(error).__name__}: {_last_line(error)}") from None
    return config


def near(name: str, names: Iterable[str], dashes: str = "") -> str:
    """Returns a hint at the name that an unknown one most probably means, or ""."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {dashes}{found[0]}?" if found else ""


def _defined(defaults: Defaults) -> flags.FlagValues:
    values = flags.FlagValues()
    for name, default in defaults.items():
        if default is False:
            flags.DEFINE_bool(name, default, "", flag_values=values)
        elif isinstance(default, tuple):
            flags.DEFINE_multi_string(name, default, "", flag_values=values)
        elif isinstance(default, int):
            flags.DEFINE_integer(name, default, "", flag_values=values)
        else:
            flags.DEFINE_string(name, default, "", flag_values=values)
    return values


def _example_page() -> Path:
    """Returns the path of a page that exists, whatever the working directory is."""
    page = Path("configs", "single_head.py")
    return page if page.is_file() else Path(__file__).parent.parent.parent / page


def _read_page(page: str, fields: list[str], defaults: Defaults) -> Config:
    """Returns the config of a page with the fields that the flags set. Sets None itself, because absl cannot."""
    from ml_collections import config_flags

    from experiments import settings

    matches = [re.match(r"--?(?:no)?config\.([^=]*)=?(.*)", field, re.DOTALL) for field in fields]
    # Unknown fields are refused here, because absl raises errors of its own for some of them.
    rules = [match and settings.rule_of(match[1]) for match in matches]
    cleared = {m[1]: f for m, r, f in zip(matches, rules, fields, strict=True) if m and r and m[2] == "None" and r.holds(None)}
    arguments = [f"--config={page}", *(field for field in fields if field not in cleared.values())]
    values = _defined({name: default for name, default in defaults.items() if name != "config"})  # for hints at them
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=["experiments", *arguments])
    sys.modules.pop("config_config", None)  # otherwise config_flags would load a page into the module of the previous one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # config_flags loads a page with load_module()
        _parsed(values, arguments)
    if cleared:
        values.config.update_from_flattened_dict(dict.fromkeys(cleared))
    return values.config


def _parsed(values: flags.FlagValues, arguments: list[str], words: bool = False, known_only: bool = False) -> list[str]:
    """Fills `values` and returns the words without dashes. Raises UsageError for a bad flag, and for a word unless `words`."""
    values.set_gnu_getopt()  # words may stand anywhere
    try:
        rest = values(["experiments", *arguments], known_only=known_only)[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"--{error.flagname} is not a flag of this command{_flag_hint(error.flagname, values)}") from None
    except flags.IllegalFlagValueError as error:
        raise UsageError(_bad_value(str(error), arguments, values)) from None
    except (flags.Error, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from None
    if rest and not words:
        raise UsageError(f"{rest[0]!r} has no dashes: flags have the form --NAME=VALUE")
    return rest


def _bad_value(message: str, arguments: list[str], values: flags.FlagValues) -> str:
    """Rewrites absl's "flag --config.epochs=abc: invalid literal …" with the rule of the field or the flag, if it has one."""
    name = message.removeprefix("flag --").partition("=")[0]
    for value in (argument.split("=", 1)[-1] for argument in arguments):
        if message.startswith(f"flag --{name}={value}: "):
            if name.startswith("config."):
                from experiments import settings

                if rule := settings.RULES.get(name.removeprefix("config.")):
                    return f"{name}={value} must be {rule.text}"
            elif rule := _RULES.get(values[name].flag_type()):
                return f"--{name}={value} must be {rule}"
            return f"--{name}={value}: " + _last_line(message.removeprefix(f"flag --{name}={value}: "))
    return " ".join(message.split())


def _last_line(error: object) -> str:
    """Returns the message of an error, before which config_flags puts a whole traceback."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"])[-1]


def _flag_hint(name: str, values: flags.FlagValues) -> str:
    """Returns a hint at the flag that an unknown one most probably means, or else the names of all flags."""
    names = [flag for flag in values if not flag.startswith("config.")]
    if hint := near(name, names, "--"):
        return hint
    if "config" in names:
        from experiments import settings

        if field := settings.near_field(name):
            return f"; did you mean --config.{field}?"
        names.append("config.FIELD")
    return f"; its flags are {', '.join(f'--{flag}' for flag in sorted(names))}"
