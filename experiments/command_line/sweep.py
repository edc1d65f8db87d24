"""The command `sweep`: its flags, and what it does before anything is written."""

import contextlib
import itertools
import re
import sys
from pathlib import Path
from typing import Any

from absl.flags import FlagValues

from experiments.command_line import command_flags
from experiments.errors import UsageError, first_line
from experiments.machine import devices
from experiments.storage import lock

ACTIONS = ("plan", "run", "status", "retry")
ENGINES = ("local", "ray")
_FLAGS = {
    "config": None,
    "sweepdir": None,
    "grid": (),
    "jobs": None,
    "halving": None,
    "extend": False,
    "fail_fast": False,
    "ledger": (),
    "engine": "local",
    "ray_address": None,
    "resources": None,
}
_USED = {  # by each action
    "plan": ("config", "sweepdir", "grid", "halving", "extend", "ledger"),
    "run": tuple(_FLAGS),
    "status": ("sweepdir",),
    "retry": ("sweepdir", "jobs", "fail_fast", "ledger", "engine", "ray_address", "resources"),
}
FLAG = "--sweepdir"


def sweep(arguments: list[str]) -> None:
    """Runs `sweep plan`, `run`, `status` or `retry`, whose name is the first argument."""
    action, *rest = arguments or [""]
    if action not in ACTIONS:
        near = command_flags.near(action, ACTIONS)
        raise UsageError(f"sweep {action!r} must be one of {', '.join(ACTIONS)}{near}")
    defaults = {name: _FLAGS[name] for name in _USED[action]}
    values, fields = command_flags.parse(rest, defaults, fields=action in ("plan", "run"))
    sweepdir = _sweepdir(values, optional=action == "plan")
    if action == "plan":
        _plan(values, fields, defaults, sweepdir)
    elif action == "status":
        _status(sweepdir)
    elif action == "run":
        _run(values, fields, defaults, sweepdir)
    else:
        _retry(values, sweepdir)


def _sweepdir(values: FlagValues, optional: bool) -> Any:
    if values.sweepdir is None and optional:
        return None
    if not values.sweepdir:
        raise UsageError(f"{FLAG} is missing: it must be the folder of the sweep")
    return command_flags.path(FLAG, values.sweepdir)


def _plan(values: FlagValues, fields: list[str], defaults: dict[str, Any], sweepdir: Path | None) -> None:
    eta = _integer(values, "halving")
    found, read = _read(values, fields, defaults)
    from experiments.sweeps import plan, runner

    found = runner.check(found, sweepdir, values.extend, eta)
    print(plan.describe(found, sweepdir, read, eta, _ledgers(values)))


def _status(sweepdir: Path) -> None:
    from experiments.sweeps import status, sweep_folder

    print(status.table(sweep_folder.read(sweepdir), sweepdir))


def _run(values: FlagValues, fields: list[str], defaults: dict[str, Any], sweepdir: Path) -> None:
    lock.refuse_if_busy(sweepdir, FLAG)
    eta = _integer(values, "halving")
    found, _ = _read(values, fields, defaults)
    from experiments.sweeps import runner

    runner.check(found, sweepdir, values.extend, eta)
    ledgers = _ledgers(values)
    with contextlib.closing(_engine(values)) as engine:
        runner.run(found, sweepdir, engine, values.extend, values.fail_fast, eta, ledgers)


def _retry(values: FlagValues, sweepdir: Path) -> None:
    lock.refuse_if_busy(sweepdir, FLAG)
    _configure()
    from experiments.sweeps import runner, sweep_folder

    sweep_folder.read(sweepdir)
    if sweep_folder.read_failures(sweepdir):
        ledgers = _ledgers(values)
        with contextlib.closing(_engine(values)) as engine:
            runner.retry(sweepdir, engine, values.fail_fast, ledgers)
    else:
        print(f"No trial in {sweepdir} has failed.")


def _read(values: FlagValues, fields: list[str], defaults: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the sweep that the flags ask for, and what reads the corpus of a config. Writes nothing."""
    page = command_flags.page(values)
    _configure()
    config = command_flags.read_config(page, fields, defaults)
    sources = _of_page(page)
    from experiments import settings
    from experiments.sweeps import grid_flags, points, trials
    from experiments.sweeps.sweep_folder import Sweep

    sources += [grid_flags.read(values.grid)] if values.grid else []
    if config.seeds is not None:
        sources.append(points.seeds(config.seeds))
        config.seeds = None
    if not sources:
        raise UsageError(f"the sweep is empty: {page} has no sweep(), and there is no --grid")
    base, read = settings.flatten(config), _corpora()
    label = Path(page.partition(":")[0]).stem
    return Sweep(label, base, trials.make(base, points.crossed(*sources), read)), read


def _of_page(page: str) -> list[list[Any]]:
    """Returns the points of the page that was read last, as the only source; no source if it has no `sweep`."""
    from experiments.sweeps import trials

    sweep = getattr(sys.modules.get("config_config"), "sweep", None)
    if sweep is None:
        return []
    try:
        found = list(itertools.islice(sweep(), trials.MOST + 1))
    except UsageError as error:
        raise UsageError(f"sweep() of {page}: {error}") from None
    except Exception as error:  # a page is Python code, which may raise anything
        raise UsageError(f"sweep() of {page} cannot be read: {type(error).__name__}: {first_line(error)}") from None
    for number, point in enumerate(found, start=1):
        if not isinstance(point, dict):
            raise UsageError(f"sweep() of {page}: point {number} is {point!r}: it must be a dict such as {{'seed': 1}}")
    return [found]


def _corpora() -> Any:
    """Returns what reads the corpus of a config, each one once."""
    from experiments.training import build

    read: dict[str, Any] = {}

    def corpus(config: Any) -> Any:
        key = str(config.data)
        if key not in read:
            read[key] = build.build_corpus(config)
        return read[key]

    return corpus


def _configure() -> None:
    """Imports JAX for a process that plans: the accelerators are for those that train."""
    devices.configure()
    import jax

    jax.config.update("jax_platforms", "cpu")


def _ledgers(values: FlagValues) -> Any:
    """Returns the ledgers. Raises UsageError if one does not exist that is only read, or the first cannot be written."""
    from experiments.sweeps import ledgers

    folders = [command_flags.path(ledgers.FLAG, folder) for folder in values.ledger]
    for folder in folders[1:]:
        if not folder.is_dir():
            raise UsageError(f"{ledgers.FLAG}={folder} must be a folder: all but the first are only read")
    return ledgers.Ledgers(folders)


def _engine(values: FlagValues) -> Any:
    """Returns the engine. Raises UsageError if a flag breaks its rule, or there is no such engine here."""
    command_flags.choice("engine", values.engine, ENGINES)
    if values.engine == "ray":
        if values.jobs is not None:
            raise UsageError("--jobs is of --engine=local: with --engine=ray, --resources says how many trials run at once")
        from experiments.sweeps import ray_engine

        return ray_engine.RayEngine(values.ray_address, values.resources)
    for name in ("ray_address", "resources"):
        if values[name].value is not None:
            raise UsageError(f"--{name} is of --engine=ray")
    from experiments.sweeps import pool

    return pool.Pool(_integer(values, "jobs"))


def _integer(values: FlagValues, name: str) -> int | None:
    text = values[name].value
    if text is not None and not re.fullmatch("[0-9]{1,6}", text):
        raise UsageError(f"--{name}={text} must be an integer")
    return None if text is None else int(text)
