"""The commands, their flags, and what a wrong one is told."""

import difflib
import json
import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

import jax
from absl import flags
from ml_collections import config_flags

from experiments import settings
from experiments.errors import Refusal, UsageError

USAGE = """usage: python -m experiments COMMAND [--FLAG=VALUE …]

  prepare     [--archive=PATH] [--data_dir=DIR]                             the IMDB reviews, from an archive or the net
  train       --config=configs/NAME.py --workdir=DIR [--config.FIELD=VALUE …]     one run
  evaluate    --workdir=DIR [--split=validation|test]                       loss and accuracy of a finished run, as JSON
  predict     --workdir=DIR [FILE|-]                                        a label for each line of a file, as JSON
  reproduce   --workdir=DIR [--seeds=5] [--data_dir=DIR]                    the blog's curves on IMDB, over ours
  quickstart  [--workdir=runs/quickstart]                                   the four classifiers on the embedded corpus"""


def main(arguments: list[str]) -> int:
    """Runs a command and returns its exit code; what the user can mend is one line on stderr."""
    use_all_cores()
    try:
        if not arguments or arguments[0] in ("help", "-h", "--help"):
            print(USAGE)
            return 0 if arguments else UsageError.exit_code
        name, *rest = arguments
        if name not in COMMANDS:
            raise UsageError(f"{name!r} is no command: it must be one of {', '.join(COMMANDS)}{_hint(name, COMMANDS)}")
        COMMANDS[name](rest)
    except Refusal as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return refusal.exit_code
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def use_all_cores() -> None:
    """One virtual CPU device a core, and compiled programs kept on disk. Before the first array is made."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jax.config.update("jax_num_cpu_devices", cores)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "attn" / "compiled"))


def _prepare(arguments: list[str]) -> None:
    values = _parse(arguments, archive=None, data_dir=None)
    from experiments.data import imdb

    folder = imdb.prepare(_path(values.archive), _path(values.data_dir))
    print(f"prepared in {folder}")


def _train(arguments: list[str]) -> None:
    values = _parse_config(arguments)
    from experiments import train

    result = train.train(values.config, Path(values.workdir))
    print(f"test_loss {result['test_loss']:.4f}  test_accuracy {result['test_accuracy']:.4f}  in {values.workdir}")


def _evaluate(arguments: list[str]) -> None:
    values = _parse(arguments, workdir=None, split="validation")
    if values.split not in ("validation", "test"):
        raise UsageError(f"--split={values.split} must be validation or test")
    from experiments import train

    print(json.dumps(train.evaluate(_workdir(values), values.split)))


def _predict(arguments: list[str]) -> None:
    files = [a for a in arguments if a == "-" or not a.startswith("-")]
    values = _parse([a for a in arguments if a not in files], workdir=None)
    if len(files) > 1:
        raise UsageError(f"predict reads one FILE, not {len(files)}: {' '.join(files)}")
    from experiments import predict, run_folder

    run = run_folder.load(_workdir(values))
    with sys.stdin.buffer if files in ([], ["-"]) else _open(files[0]) as lines:
        for line in predict.predict(run, lines):
            print(line, flush=True)


def _open(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"FILE {file} cannot be read: {error.strerror}") from None


def _reproduce(arguments: list[str]) -> None:
    values = _parse(arguments, workdir=None, data_dir=None, seeds=5)
    if not 1 <= values.seeds <= 1000:
        raise UsageError(f"--seeds={values.seeds} must be an integer from 1 to 1000")
    from experiments import reproduce

    reproduce.reproduce(_workdir(values), values.seeds, values.data_dir)


def _quickstart(arguments: list[str]) -> None:
    values = _parse(arguments, workdir="runs/quickstart")
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


def _parse(arguments: list[str], **defaults: str | int | None) -> flags.FlagValues:
    """Flags of these names, integers where the default is one; no word may stand without dashes."""
    values = flags.FlagValues()
    for name, default in defaults.items():
        if isinstance(default, int):
            flags.DEFINE_integer(name, default, "", flag_values=values)
        else:
            flags.DEFINE_string(name, default, "", flag_values=values)
    return _parsed(values, arguments)


def _parse_config(arguments: list[str]) -> flags.FlagValues:
    """--workdir, --config and its fields. Unknown fields are refused before absl meets them: it would raise on some."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=["experiments", *arguments])
    for argument in arguments:
        if match := re.match(r"--?config\.([^=]*)", argument):
            settings.rule_of(match[1])
    if not any(re.match(r"--?config=", a) for a in arguments):
        raise UsageError("--config is missing: it must be a page such as configs/single_head.py")
    _parsed(values, arguments)
    _workdir(values)
    settings.check(values.config)
    return values


def _parsed(values: flags.FlagValues, arguments: list[str]) -> flags.FlagValues:
    try:
        words = values(["experiments", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"--{error.flagname} is no flag of this command{_hint(error.flagname, list(values))}") from None
    except flags.IllegalFlagValueError as error:
        raise UsageError(_bad_value(str(error))) from None
    except (flags.Error, OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(" ".join(str(error).split())) from None
    if words:
        raise UsageError(f"{words[0]!r} is a word without dashes: flags are --NAME=VALUE")
    return values


def _bad_value(message: str) -> str:
    """absl's "flag --config.epochs=abc: invalid literal …", with the field's own rule where it has one."""
    match = re.match(r"flag --(config\.)?([^=]+)=(.*): ", message)
    if match and match[1] and match[2] in settings.RULES:
        return f"config.{match[2]}={match[3]} must be {settings.RULES[match[2]].text}"
    return " ".join(message.split())


def _workdir(values: flags.FlagValues) -> Path:
    if not values.workdir:
        raise UsageError("--workdir is missing: it must be the folder of the run")
    return Path(values.workdir)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _hint(name: str, names) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
