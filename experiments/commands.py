"""The commands, their flags, and the messages for wrong ones."""

import difflib
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from absl import flags
from ml_collections import config_flags

from experiments import devices, settings
from experiments.errors import Refusal, UsageError
from experiments.settings import Config

USAGE = """usage: python -m experiments COMMAND [--FLAG=VALUE …], in a checkout of the repository

  quickstart  [--workdir=runs/quickstart]
              Trains six small models on the embedded corpus. One to two minutes.
  train       --config=configs/NAME.py[:verdicts] --workdir=DIR [--config.FIELD=VALUE …]
              Trains one model, on IMDB or on the embedded corpus. Half a minute to seven minutes, which it estimates itself.
  evaluate    --workdir=DIR [--split=validation|test]
              Prints loss and accuracy of a finished run, as JSON. Less than a minute.
  predict     --workdir=DIR [FILE|-]
              Prints a label for each line of a file or of standard input, as JSON. Seconds.
  prepare     [--archive=PATH] [--data_dir=DIR]
              Prepares the IMDB reviews, from a local archive or from a download of 84 MB. Half a minute and the download.
  reproduce   --workdir=DIR [--seeds=5] [--data_dir=DIR]
              Trains four models on IMDB and compares them with the curves of the blog post. About 84 minutes in all.

The times are those of two idle CPU cores. README.md and docs/lab.md say more."""

INTERRUPTED = 130  # the exit code of Ctrl-C


def main(arguments: list[str]) -> int:
    """Runs a command.

    Args:
      arguments: The command line without the name of the program, such as ["evaluate", "--workdir=runs/a"].

    Returns:
      The exit code. An error that the user can correct is printed to stderr as one line; any other keeps its traceback.
    """
    try:
        code = _run(arguments)
        sys.stdout.flush()  # inside of the try, so that a broken pipe is caught
        return code
    except Refusal as refusal:
        print(f"error: {_printable(refusal)}", file=sys.stderr)
        return refusal.exit_code
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # for example, the disk is full
        print(f"error: {_printable(error)}", file=sys.stderr)
        return Refusal.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED


def _printable(error: Exception) -> str:
    """Returns the message of an error with all control characters escaped, since it may quote any bytes of the command line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(error))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] == "help" or not {"-h", "--help"}.isdisjoint(arguments):
        print(USAGE)
        return 0 if arguments else UsageError.exit_code
    name, *rest = arguments
    if name not in COMMANDS:
        raise UsageError(f"{name!r} is not a command: it must be one of {', '.join(COMMANDS)}{_hint(name, COMMANDS)}")
    devices.start()
    COMMANDS[name](rest)
    return 0


def _prepare(arguments: list[str]) -> None:
    values, _ = _parse(arguments, archive=None, data_dir=None)
    from experiments.data import imdb

    folder = imdb.prepare(_path(values.archive), _path(values.data_dir))
    print(f"prepared in {folder}")


def _train(arguments: list[str]) -> None:
    config, page, workdir = _parse_config(arguments)
    from experiments import train

    result = train.train(config, workdir, page)
    print(f"test_loss {result['test_loss']:.4f}  test_accuracy {result['test_accuracy']:.4f}  in {workdir}")
    if config.data.name == "verdicts" and config.model.positions == "none":
        print("Without positions, no model exceeds 0.5 on this corpus: try --config.model.positions=sinusoidal.")


def _evaluate(arguments: list[str]) -> None:
    values, _ = _parse(arguments, workdir=None, split="validation")
    if values.split not in ("validation", "test"):
        raise UsageError(f"--split={values.split} must be validation or test")
    from experiments import evaluation

    print(json.dumps(evaluation.evaluate(_workdir(values), values.split)))


def _predict(arguments: list[str]) -> None:
    values, files = _parse(arguments, words=True, workdir=None)
    if len(files) > 1:
        raise UsageError(f"predict reads one FILE, not {len(files)}: {' '.join(files)}")
    workdir = _workdir(values)
    from experiments import predict, run_folder

    with _open(files[0] if files else "-") as lines:
        for line in predict.predict(run_folder.load(workdir), lines):
            print(line, flush=True)


def _open(file: str) -> BinaryIO:
    if file == "-" and sys.stdin is None:
        raise UsageError("FILE is missing, and standard input is closed")
    try:
        return sys.stdin.buffer if file == "-" else Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"FILE {file} cannot be read: {error.strerror}") from None


def _reproduce(arguments: list[str]) -> None:
    values, _ = _parse(arguments, workdir=None, data_dir=None, seeds=5)
    if not 1 <= values.seeds <= 1000:
        raise UsageError(f"--seeds={values.seeds} must be an integer from 1 to 1000")
    from experiments import reproduce

    reproduce.reproduce(_workdir(values), values.seeds, values.data_dir)


def _quickstart(arguments: list[str]) -> None:
    values, _ = _parse(arguments, workdir="runs/quickstart")
    from experiments import quickstart

    quickstart.quickstart(_workdir(values))


COMMANDS = {
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "reproduce": _reproduce,
    "quickstart": _quickstart,
}


def _parse(arguments: list[str], words: bool = False, **defaults: str | int | None) -> tuple[flags.FlagValues, list[str]]:
    """Parses flags.

    Args:
      arguments: The command line after the name of the command.
      words: Whether words without dashes are allowed.
      **defaults: The flags and their defaults. A flag whose default is an integer takes integers only.

    Returns:
      The values of the flags, and the words without dashes.
    """
    values = flags.FlagValues()
    for name, default in defaults.items():
        if isinstance(default, int):
            flags.DEFINE_integer(name, default, "", flag_values=values)
        else:
            flags.DEFINE_string(name, default, "", flag_values=values)
    return values, _parsed(values, arguments, words)


def _parse_config(arguments: list[str]) -> tuple[Config, str, Path]:
    """Returns the checked config of --config and of the flags for its fields, the name of its page, and --workdir."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    fields = _parsed(values, arguments, words=True, known_only=True)
    workdir = _workdir(values)
    if not values.config or not Path(values.config.partition(":")[0]).is_file():
        problem = "--config is missing" if values.config is None else f"--config={values.config} is not a file"
        raise UsageError(f"{problem}: it must be a config file such as {_example_page()}")
    try:
        config = _read_page(values.config, fields)
        settings.check(config)
    except Refusal:
        raise
    except Exception as error:  # a page is Python code, which may raise anything
        raise UsageError(f"--config={values.config} cannot be read: {type(error).__name__}: {_last_line(error)}") from None
    return config, Path(values.config.partition(":")[0]).stem, workdir


def _example_page() -> Path:
    """Returns the path of a page that exists, whatever the working directory is."""
    page = Path("configs", "single_head.py")
    return page if page.is_file() else Path(__file__).parent.parent / page


def _read_page(page: str, fields: list[str]) -> Config:
    """Returns the config of a page with the fields that the flags set. Sets None itself, because absl cannot."""
    matches = [re.match(r"--?(?:no)?config\.([^=]*)=?(.*)", field, re.DOTALL) for field in fields]
    # Unknown fields are refused here, because absl raises errors of its own for some of them.
    rules = [match and settings.rule_of(match[1]) for match in matches]
    cleared = {m[1]: f for m, r, f in zip(matches, rules, fields, strict=True) if m and r and m[2] == "None" and r.holds(None)}
    arguments = [f"--config={page}", *(field for field in fields if field not in cleared.values())]
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", None, "", flag_values=values
    )  # its value is known already; it is here for the hint after --wokdir
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
        raise UsageError(_bad_value(str(error), arguments)) from None
    except (flags.Error, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from None
    if rest and not words:
        raise UsageError(f"{rest[0]!r} has no dashes: flags have the form --NAME=VALUE")
    return rest


def _bad_value(message: str, arguments: list[str]) -> str:
    """Rewrites absl's "flag --config.epochs=abc: invalid literal …" with the rule of the field, if it has one."""
    name = message.removeprefix("flag --").partition("=")[0]
    for value in (argument.split("=", 1)[-1] for argument in arguments):
        if message.startswith(f"flag --{name}={value}: "):
            field = name.removeprefix("config.")
            if field != name and field in settings.RULES:
                return f"{name}={value} must be {settings.RULES[field].text}"
            return f"--{name}={value}: " + _last_line(message.removeprefix(f"flag --{name}={value}: "))
    return " ".join(message.split())


def _last_line(error: object) -> str:
    """Returns the message of an error, before which config_flags puts a whole traceback."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"])[-1]


def _workdir(values: flags.FlagValues) -> Path:
    if not values.workdir:
        raise UsageError("--workdir is missing: it must be the folder of the run")
    return Path(values.workdir)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _flag_hint(name: str, values: flags.FlagValues) -> str:
    """Returns a hint at the flag that an unknown one most probably means, or else the names of all flags."""
    names = [flag for flag in values if not flag.startswith("config.")]
    if hint := _hint(name, names):
        return hint
    if "config" in names:
        if field := settings.near_field(name):
            return f"; did you mean --config.{field}?"
        names.append("config.FIELD")
    return f"; its flags are {', '.join(f'--{flag}' for flag in sorted(names))}"


def _hint(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
