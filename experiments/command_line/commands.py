"""The commands and their exit codes. The flags are read by `command_flags`.

What takes long to import is imported in the commands, when their flags are read: a wrong command line is told at once.
"""

import io
import json
import os
import sys
from pathlib import Path

from absl.flags import FlagValues

from experiments.command_line import attend, command_flags, pair_flags, process_flags, sweep, text_flags
from experiments.command_line.command_flags import path
from experiments.command_line.process_flags import Place
from experiments.errors import Refusal, UsageError, printable
from experiments.fields import GENERATED
from experiments.machine import devices
from experiments.machine.stopping import INTERRUPTED, Signals
from experiments.storage import lock

USAGE = """usage: python -m experiments COMMAND [--FLAG=VALUE …], in a checkout of the repository

  quickstart  [--workdir=runs/quickstart]
              Trains six small models on the embedded corpus. One to two minutes.
  train       --config=configs/NAME.py[:verdicts|:agreement] --workdir=DIR [--config.FIELD=VALUE …]
              Trains one model, on IMDB or on a generated corpus, or continues a run that was stopped.
              Half a minute to seven minutes, which it estimates itself.
              --config.data.name=csv --config.data.path=FILE trains on texts and labels of your own; docs/data.md says more.
              --dry_run says what the run would do, its size and its cost, and trains nothing; it needs no --workdir.
              --coordinator=HOST:PORT --num_processes=N --process_id=I is one of N processes that train together;
              --distributed is the same where the environment of a cluster tells these three.
  evaluate    --workdir=DIR [--split=validation|test] [--checkpoint=last|best]
              Prints loss and accuracy of a run, as JSON. Less than a minute.
  predict     --workdir=DIR [FILE|-|--words=TEXT] [--show_text] [--all] [--checkpoint=last|best]
              Prints a label for each line of a file or of standard input, or for one text, as JSON. Seconds.
              --all adds the probabilities of all labels.
              Of a run of pairs of texts, the output of each line; [--beam=4 --length_penalty=0.6] decodes it by beam search,
              --align draws which tokens of the line each token of the output looked at, --picture=FILE.svg|.html as a file.
  attend      --workdir=DIR [FILE|-|--words=TEXT] --out=page.html [--layer=0] [--head=0] [--queries=0..9] [--checkpoint=…]
              Makes a page of what every layer and head attends to in one text, or with --out=page.svg a picture. Seconds.
              --live puts the classifier into the page, which then reads what is typed; --float32 keeps all its digits.
  sweep       plan|run|status|retry --sweepdir=DIR [--config=configs/NAME.py[:verdicts] --config.FIELD=VALUE …]
              [--grid FIELD=VALUE,VALUE …] [--jobs=N] [--halving=3] [--extend] [--fail_fast] [--engine=local|ray]
              [--ledger=DIR]
              Trains many models, or continues: a run for each point of the page's sweep() and of the grid. plan says what
              it would cost, status how far it is, and retry trains again what has failed. With --ledger, finished runs are
              kept as small files, and what is there counts as done. docs/launch.md says more.
  prepare     [--archive=PATH] [--data_dir=DIR]
              Prepares the IMDB reviews, from a local archive or from a download of 84 MB. Half a minute and the download.
  reproduce   --workdir=DIR [--seeds=20] [--data_dir=DIR] [--update_docs]
              Trains four models on IMDB and compares them with the curves of the blog post. Four runs a seed, of three
              and a half minutes each, except those that are in docs/reproduction/runs: with all of them, seconds.
  report      RUNS… --out=DIR [--baseline=GROUP] [--published=CSV]
              Makes a page of runs that are trained: their results, curves, failures and commands. RUNS are run folders,
              folders with run folders below them, and files of the ledger. Seconds.

The times are those of two idle CPU cores. README.md and docs/lab.md say more."""


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
        print(f"error: {printable(str(refusal))}", file=sys.stderr)
        return refusal.exit_code
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # for example, the disk is full
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return Refusal.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] == "help" or not {"-h", "--help"}.isdisjoint(arguments):
        print(USAGE)
        return 0 if arguments else UsageError.exit_code
    name, *rest = arguments
    if name not in COMMANDS:
        near = command_flags.near(name, COMMANDS)
        raise UsageError(f"{name!r} is not a command: it must be one of {', '.join(COMMANDS)}{near}")
    COMMANDS[name](rest)
    return 0


def _prepare(arguments: list[str]) -> None:
    values, _ = command_flags.parse(arguments, {"archive": None, "data_dir": None})
    archive = command_flags.optional_path("--archive", values.archive)
    data_dir = command_flags.optional_path("--data_dir", values.data_dir)
    from experiments.data import imdb

    print(f"prepared in {imdb.prepare(archive, data_dir)}")


def _train(arguments: list[str]) -> None:
    values, fields = command_flags.parse(arguments, _TRAIN, fields=True)
    if values.dry_run:
        _describe(values, fields)
        return
    workdir, page = command_flags.workdir(values), command_flags.page(values)
    place = process_flags.read(values)
    if place:
        _join(place)
    else:  # of several processes one holds the lock, and tells the others
        lock.refuse_if_busy(workdir)
    devices.start()
    config = command_flags.read_config(page, fields, _TRAIN)
    from experiments.machine import processes
    from experiments.training import seeds, train

    label = Path(page.partition(":")[0]).stem
    if config.seeds is not None:
        seeds.train(config, workdir, label)
        return
    result = train.train(config, workdir, label)
    if processes.is_writer():
        print(f"test_loss {result['test_loss']:.4f}  test_accuracy {result['test_accuracy']:.4f}  in {workdir}")
        from attn.models.classifier import WITH_ATTENTION

        if config.data.name in GENERATED and config.model.body in WITH_ATTENTION and config.model.positions == "none":
            print("Without positions, no model exceeds 0.5 on this corpus: try --config.model.positions=sinusoidal.")


def _describe(values: FlagValues, fields: list[str]) -> None:
    """Prints what a run would do. One process can tell it, and a run folder is not needed."""
    if process_flags.read(values):
        raise UsageError("--dry_run and the flags of several processes exclude each other: it describes what one process does")
    workdir = None if values.workdir is None else command_flags.workdir(values)
    page = command_flags.page(values)
    devices.start()
    config = command_flags.read_config(page, fields, _TRAIN)
    from experiments.cost import dry_run

    print(dry_run.describe(config, workdir))


_TRAIN = {"config": None, "workdir": None, "dry_run": False, **process_flags.DEFAULTS}


def _join(place: Place) -> None:
    """Joins the other processes, before the first device is used. A signal ends the waiting."""
    devices.configure()
    from experiments.machine import processes

    with Signals() as signals:
        signals.abandonable(processes.join, *place)


def _evaluate(arguments: list[str]) -> None:
    values, _ = command_flags.parse(arguments, {"workdir": None, "split": "validation", "checkpoint": "last"})
    workdir = command_flags.workdir(values)
    split = command_flags.choice("split", values.split, ("validation", "test"))
    checkpoint = command_flags.choice("checkpoint", values.checkpoint, ("last", "best"))
    devices.start()
    from experiments.training import evaluation

    print(json.dumps(evaluation.evaluate(workdir, split, checkpoint)))


def _predict(arguments: list[str]) -> None:
    defaults = {"workdir": None, "words": None, "show_text": False, "all": False, "checkpoint": "last", **pair_flags.DEFAULTS}
    values, files = command_flags.parse(arguments, defaults, words=True)
    file = text_flags.file_of("predict", files, values.words)
    workdir = command_flags.workdir(values)
    checkpoint = command_flags.choice("checkpoint", values.checkpoint, ("last", "best"))
    wanted = pair_flags.read(values)
    with text_flags.opened(file, values.words) as texts:
        devices.start()
        from experiments import predict
        from experiments.storage import run_folder

        run = run_folder.load(workdir, checkpoint)
        pairs = pair_flags.refuse_other(run, workdir, wanted)
        if typed := isinstance(texts, io.IOBase) and texts.isatty():
            print("One text a line; Ctrl-D ends.", file=sys.stderr, flush=True)
        size = 1 if typed else predict.BATCH_SIZE
        if pairs:
            pair_flags.predict(run, texts, wanted, size, values.show_text, values.all)
            return
        for line in predict.predict(run, texts, values.show_text, size, every_class=values.all):
            print(line, flush=True)


def _reproduce(arguments: list[str]) -> None:
    values, _ = command_flags.parse(arguments, {"workdir": None, "data_dir": None, "seeds": 20, "update_docs": False})
    if not 2 <= values.seeds <= 1000:
        raise UsageError(f"--seeds={values.seeds} must be an integer from 2 to 1000")
    workdir = command_flags.workdir(values)
    command_flags.optional_path("--data_dir", values.data_dir)
    devices.start()
    from experiments.reproduction import reproduce

    reproduce.reproduce(workdir, values.seeds, values.data_dir, values.update_docs)


def _report(arguments: list[str]) -> None:
    values, runs = command_flags.parse(arguments, {"out": None, "baseline": None, "published": None}, words=True)
    if not values.out:
        raise UsageError("--out is missing: it must be the folder of the report")
    out, published = path("--out", values.out), command_flags.optional_path("--published", values.published)
    paths = [str(path("RUNS", run)) for run in runs]
    from experiments.report import report

    print(f"The report is in {report.report(paths, out, values.baseline, published)}.")


def _quickstart(arguments: list[str]) -> None:
    values, _ = command_flags.parse(arguments, {"workdir": "runs/quickstart"})
    workdir = command_flags.workdir(values)
    devices.start()
    from experiments import quickstart

    quickstart.quickstart(workdir)


COMMANDS = {
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "attend": attend.attend,
    "reproduce": _reproduce,
    "quickstart": _quickstart,
    "sweep": sweep.sweep,
    "report": _report,
}
TRAINING = ("train", "reproduce", "quickstart", "sweep")  # those that continue what was stopped
