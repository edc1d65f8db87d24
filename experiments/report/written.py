"""Writes a report as Markdown, and its runs and epochs as CSV."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.errors import printable
from experiments.report import groups, heads, tables
from experiments.report.document import Cell, Commands, Document, Figures, Table, Text
from experiments.report.groups import Group
from experiments.report.runs import Run

_SPECIAL = re.compile(r"[\\`*\[\]<>|~&#]|(?<![^\W_])_|_(?![^\W_])")  # underscores inside of words mean nothing in Markdown
_RESULT = (
    *("best_epoch", "best_val_loss", "best_val_accuracy", "final_val_loss", "final_val_accuracy"),
    *("test_loss", "test_accuracy", "best_test_loss", "best_test_accuracy", "parameters"),
    *("train_seconds", "compile_seconds", "device", "git_commit"),
)
_SPEEDS = ("examples_per_second", "real_tokens_per_second", "step_milliseconds")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins what it computes


def markdown(document: Document) -> str:
    """Returns the report without its figures. What means something in Markdown is escaped in all its strings."""
    parts = [f"# {_plain(document.title)}", ", ".join(f"{number} {name}" for name, number in document.summary) + "."]
    for section in document.sections:
        parts.append(f"## {_plain(section.title)}")
        for block in section.blocks:
            parts += _block(block)
    return "\n\n".join(parts) + "\n"


def _block(block: Any) -> list[str]:
    match block:
        case Text(text):
            return [_plain(text)]
        case Table(header, rows):
            cells = [[_cell(cell) for cell in row] for row in rows]
            return [*([_plain(block.folded) + ":"] if block.folded else []), tables.markdown([*map(_plain, header)], cells)]
        case Figures():
            return ["The figure is in report.html."]
        case Commands(lines):
            return [part for what, line in lines for part in (_plain(what) + ":", "    " + printable(line))]
    raise TypeError(type(block).__name__)


def _cell(cell: Cell) -> str:
    return _plain(cell) if isinstance(cell, str) else "<br>".join(map(_plain, cell))


def _plain(text: str) -> str:
    return _SPECIAL.sub(
        lambda found: f"&{ {'<': 'lt', '>': 'gt', '&': 'amp'}[found[0]] };" if found[0] in "<>&" else "\\" + found[0],
        printable(text),
    )


def runs_csv(runs: Sequence[Run], all_groups: Sequence[Group]) -> str:
    """Returns a line for each run: its group, its state, its result, its speed and its config."""
    names = _group_names(all_groups)
    fields = list(dict.fromkeys(field for run in runs for field in run.config))
    lines = []
    for run in runs:
        line = {"run": run.name, "group": names.get(id(run)), "label": run.label, "state": run.state}
        line |= {"epochs_done": len(run.rows), "exit_code": run.ending.code, "saved_step": run.ending.step}
        line["reason"] = "; ".join(run.damage) or (None if run.state == "finished" else run.ending.reason)
        line |= {name: run.result.get(name) for name in _RESULT}
        line |= {f"test_{name}": run.result.get("test", {}).get(name) for name in ("macro_f1", "ece")}
        line |= {name: heads.per_epoch(run.rows, name) for name in _SPEEDS}
        lines.append(line | {f"config.{name}": run.config.get(name) for name in fields})
    return _csv(lines)


def curves_csv(runs: Sequence[Run], all_groups: Sequence[Group]) -> str:
    """Returns a line for each epoch of each run."""
    names = _group_names(all_groups)
    columns = dict.fromkeys(column for run in runs for row in run.rows for column in row)
    return _csv(
        {"run": run.name, "group": names.get(id(run)), "seed": run.config.get("seed")}
        | {name: row.get(name) for name in columns}
        for run in runs
        for row in run.rows
    ) or _csv([], ("run", "group", "seed", "epoch"))


def _group_names(all_groups: Sequence[Group]) -> dict[int, str]:
    return {id(run): group.name for group in all_groups for run in group.runs}


def _csv(lines: Iterable[Mapping[str, Any]], header: Sequence[str] = ()) -> str:
    """Returns lines with the names of their columns. An empty cell is what is not known."""
    content, writer = io.StringIO(newline=""), None
    for line in lines:
        writer = writer or _begun(content, line)
        writer.writerow([_value(value) for value in line.values()])
    if writer is None and header:
        _begun(content, header)
    return content.getvalue()


def _begun(content: io.StringIO, header: Iterable[str]) -> Any:
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([_value(name) for name in header])
    return writer


def _value(value: Any) -> Any:
    """Numbers are exact. A text that a spreadsheet would compute is put after an apostrophe."""
    if value is None or type(value) in (int, float):
        return value
    text = printable(groups.shown(value))
    return "'" + text if text.startswith(_FORMULA) else text
